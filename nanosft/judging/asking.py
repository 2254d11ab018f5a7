"""Asks a judge many things at a time, under one bill, as far as the chat API and the budget reach."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from nanosft.errors import CreditError, NanosftError
from nanosft.generate import provider
from nanosft.generate.provider import (
    AdaptiveLimit,
    Answer,
    ChatClient,
    ChatRequest,
    ClientOptions,
    Prices,
    speaks_openrouter,
)
from nanosft.progress import Bar
from nanosft.settings.audit import AuditSettings
from nanosft.settings.evaluate import EvalSettings

CONCURRENCY: Final = 16
_MAX_RETRIES: Final = 8
_CONNECT_TIMEOUT_S: Final = 10.0
_READ_TIMEOUT_S: Final = 120.0


@dataclass
class Bill:
    """What was spent, and whether another request still fits.

    Attributes:
        budget_usd: None: no limit.
        spent_usd: Known costs.
        num_requests: Exchanges that may have cost something.
        num_unknown: Those whose cost nobody stated.
        dearest_usd: The most that one cost: what each request in flight is taken for.
        stopped_by: Why nothing more is asked; None: it goes on.
        in_flight: Requests under way.
        finished: Set whenever one ends.
    """

    budget_usd: float | None
    spent_usd: float = 0.0
    num_requests: int = 0
    num_unknown: int = 0
    dearest_usd: float = 0.0
    stopped_by: NanosftError | None = None
    in_flight: int = 0
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, cost_usd: float | None) -> None:
        """Count an exchange; one of unknown cost is taken for the dearest."""
        self.num_requests += 1
        self.num_unknown += cost_usd is None
        self.spent_usd += cost_usd or 0.0
        self.dearest_usd = max(self.dearest_usd, cost_usd or 0.0)

    async def admit(self) -> bool:
        """Whether to ask once more. The first request goes alone, since nothing is known of its cost."""
        while self.budget_usd is not None and self.stopped_by is None:
            if self.num_requests or not self.in_flight:
                held_usd = (self.in_flight + self.num_unknown + 1) * self.dearest_usd
                if self.spent_usd + held_usd <= self.budget_usd:
                    break
                if not self.in_flight:
                    self.stopped_by = CreditError(f"the judge's budget of ${self.budget_usd:g} is reached")
                    return False
            self.finished.clear()
            await self.finished.wait()
        if self.stopped_by is None:
            self.in_flight += 1
        return self.stopped_by is None

    def leave(self) -> None:
        """A request has ended."""
        self.in_flight -= 1
        self.finished.set()


@dataclass(frozen=True)
class Asker:
    """Asks one judge, as far as it answers and the budget reaches; `bill.stopped_by` says what ended it early."""

    settings: EvalSettings | AuditSettings
    base_url: str
    model: str
    key: str
    bill: Bill
    concurrency: int = CONCURRENCY

    async def ask(
        self,
        write: Callable[[int, int], ChatRequest],
        num: int,
        take: Callable[[int, Answer], bool],
        *,
        num_tries: int = 1,
        bar: Bar | None = None,
    ) -> None:
        """Ask `num` things.

        Args:
            write: The request of a thing: its place, and which try it is.
            num: How many there are.
            take: Gets every exchange that was or may have been billed, and says whether it can be used.
            num_tries: Answers to one thing until one can be used.
            bar: Shows how many have been asked.
        """
        options = ClientOptions(
            models=(self.model,),
            endpoint=self.base_url,
            openrouter=speaks_openrouter(self.base_url),
            max_retries=_MAX_RETRIES,
            prices={
                self.model: Prices.of_million(
                    self.settings.prompt_price_usd or 0.0, self.settings.completion_price_usd or 0.0
                )
            },
            secret=self.key,
        )
        self.bill.finished = asyncio.Event()  # each event loop has its own
        waiting = iter(range(num))
        async with provider.open_post(
            self.base_url,
            key=self.key,
            num_connections=self.concurrency,
            connect_timeout_s=_CONNECT_TIMEOUT_S,
            read_timeout_s=_READ_TIMEOUT_S,
        ) as post:
            client = ChatClient(post, options, limit=AdaptiveLimit(self.concurrency))

            async def work() -> None:
                for place in waiting:
                    for number in range(num_tries):
                        answer = await self._ask_once(client, write(place, number), partial(take, place))
                        if answer is None:
                            return
                        if take(place, answer):
                            break
                    if bar is not None:
                        bar.advance(cost_usd=round(self.bill.spent_usd, 6))

            async with asyncio.TaskGroup() as group:
                for _ in range(self.concurrency):
                    group.create_task(work())

    async def _ask_once(
        self, client: ChatClient, request: ChatRequest, on_failure: Callable[[Answer], object]
    ) -> Answer | None:
        """One answer; None where nothing more is asked."""

        def count_failure(answer: Answer) -> None:
            self.bill.add(answer.usage.cost_usd)
            on_failure(answer)

        if not await self.bill.admit():
            return None
        await client.limit.acquire()
        try:
            answer = await client.ask(request, on_failure=count_failure)
        except NanosftError as exc:
            self.bill.stopped_by = self.bill.stopped_by or exc
            return None
        finally:
            client.limit.release()
            self.bill.leave()
        self.bill.add(answer.usage.cost_usd)
        return answer
