"""The cap over the whole of what is sent: a provider that bills every request and loses some of its answers."""

import asyncio
import random
from contextlib import suppress
from typing import Any

import orjson
import pytest

from nanosft.errors import CreditError, ProviderError
from nanosft.generate.provider import AdaptiveLimit, Answer, ChatClient, ChatRequest, ClientOptions
from nanosft.generate.provider.transport import HttpReply, LostError
from nanosft.generate.rows.admission import Cap
from nanosft.generate.rows.budget import Budget
from nanosft.generate.rows.ledger import Share, read_ledgers
from nanosft.store import Store, open_store

BUDGET_USD = 0.03
PRICE_USD = 0.000625
NUM_IN_FLIGHT = 8
SHARD = (1, 0)
REQUEST = ChatRequest([{"role": "user", "content": "hi"}])


class Biller:
    """A `Post` that bills each request around one price, and breaks a share of the connections after that."""

    def __init__(self, lost_share: float) -> None:
        self.billed_usd = 0.0
        self.num_until_kill = 0
        self.victim: asyncio.Task[None] | None = None
        self._lost_share = lost_share
        self._draw = random.Random(3)

    async def __call__(self, _body: bytes) -> HttpReply:
        cost_usd = PRICE_USD * self._draw.uniform(0.8, 1.2)
        self.billed_usd += cost_usd
        if self.victim is not None:
            self.num_until_kill -= 1
            if self.num_until_kill == 0:
                self.victim.cancel()
        await asyncio.sleep(0)
        if self._draw.random() < self._lost_share:
            raise LostError("the connection broke", timed_out=False)
        choice = {"finish_reason": "stop", "message": {"content": "{}"}}
        return HttpReply(200, {}, orjson.dumps({"choices": [choice], "usage": {"cost": cost_usd}}))


@pytest.fixture(autouse=True)
def _nothing_in_threads(monkeypatch):
    """The order of events is the event loop's alone: how fast a thread is decides what is reserved before a kill."""

    async def call_here(function: Any, *args: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args)

    monkeypatch.setattr(asyncio, "to_thread", call_here)


def open_budget(store: Store, attempt: str) -> Budget:
    share = Share(BUDGET_USD, BUDGET_USD / 100)
    entry = read_ledgers(store).get(SHARD)
    return Budget(store, SHARD, attempt=attempt, share=share, entry=entry, mean_cost_usd=PRICE_USD)


async def ask_until_the_budget_is_reached(post: Biller, budget: Budget) -> None:
    limit = AdaptiveLimit(NUM_IN_FLIGHT)
    options = ClientOptions(models=("a",), endpoint="x", max_retries=8)
    client = ChatClient(post, options, limit=limit, meter=budget, random_uniform=lambda low, _high: low)

    def ignore(_answer: Answer) -> None:
        pass

    async def make_rows() -> None:
        while True:
            with suppress(ProviderError):
                await client.ask(REQUEST, on_failure=ignore)

    results = await asyncio.gather(*(make_rows() for _ in range(NUM_IN_FLIGHT)), return_exceptions=True)
    assert {type(result) for result in results} == {CreditError}


@pytest.mark.parametrize("lost_share", [0.0, 0.1, 0.5, 1.0])
def test_resends_whose_answers_are_lost_do_not_pass_the_cap(tmp_path, lost_share):
    """A budget of 0.03 dollars was billed 0.121: only the first request of a row was admitted."""
    post, budget = Biller(lost_share), open_budget(open_store(str(tmp_path)), "a")
    asyncio.run(ask_until_the_budget_is_reached(post, budget))
    assert BUDGET_USD * 0.9 < post.billed_usd <= BUDGET_USD + BUDGET_USD / 100 + NUM_IN_FLIGHT * PRICE_USD


@pytest.mark.parametrize("lost_share", [0.0, 0.5, 1.0])
def test_processes_killed_with_requests_in_flight_do_not_pass_the_cap(tmp_path, lost_share):
    store, post = open_store(str(tmp_path)), Biller(lost_share)

    async def kill_at(num_posts: int) -> None:
        """The budget is never closed, as of a process that is killed."""
        post.num_until_kill = num_posts
        post.victim = asyncio.create_task(ask_until_the_budget_is_reached(post, open_budget(store, f"a{num_posts}")))
        with suppress(asyncio.CancelledError):
            await post.victim

    for num_posts in range(1, 9):
        asyncio.run(kill_at(num_posts))
    post.victim = None
    asyncio.run(ask_until_the_budget_is_reached(post, open_budget(store, "last")))
    assert BUDGET_USD / 2 < post.billed_usd <= BUDGET_USD + BUDGET_USD / 100 + NUM_IN_FLIGHT * PRICE_USD


def test_one_request_is_in_flight_until_one_has_told_what_it_cost():
    """Where the first answers were lost, all went at a guess of a seventh of the price: 13 were billed of 10.5."""

    async def ask() -> None:
        cap = Cap(10.5 * PRICE_USD, first_cost_usd=PRICE_USD / 7)
        await cap.admit()
        for _ in range(2):
            waiting = asyncio.ensure_future(cap.admit())
            await asyncio.sleep(0)
            assert not waiting.done()
            cap.spend(None)
            cap.withdraw()
            await waiting
        cap.spend(PRICE_USD)
        await cap.admit()
        await cap.admit()

    asyncio.run(ask())
