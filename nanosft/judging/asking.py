"""Asks a judge many things at a time, under one bill, as far as the chat API and the budget reach."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from nanosft.errors import NanosftError
from nanosft.generate import provider
from nanosft.generate.judges import TOKENS_PER_SCORE, judge_demand
from nanosft.generate.offers import (
    OtherModels,
    check_costs_known,
    check_model,
    find_prices,
    read_endpoint,
    warn_of_unread,
)
from nanosft.generate.provider import (
    AdaptiveLimit,
    Answer,
    ChatClient,
    ChatRequest,
    ClientOptions,
    Prices,
    require_key,
    speaks_openrouter,
)
from nanosft.generate.rows import Cap
from nanosft.progress import Bar
from nanosft.settings.audit import AuditSettings
from nanosft.settings.evaluate import EvalSettings

CONCURRENCY: Final = 16
_MAX_RETRIES: Final = 8
_CONNECT_TIMEOUT_S: Final = 10.0
_READ_TIMEOUT_S: Final = 120.0
_log: Final = logging.getLogger(__name__)


@dataclass
class Bill:
    """What was spent.

    Attributes:
        spent_usd: Known costs.
        num_requests: Exchanges that may have cost something.
        num_billed: Those that did.
        num_unknown: Those whose cost nobody stated.
        stopped_by: Why nothing more is asked; None: it goes on.
    """

    spent_usd: float = 0.0
    num_requests: int = 0
    num_billed: int = 0
    num_unknown: int = 0
    stopped_by: NanosftError | None = None

    def add(self, cost_usd: float | None) -> None:
        """Count an exchange; None: nobody stated its cost."""
        self.num_requests += 1
        self.num_billed += bool(cost_usd)
        self.num_unknown += cost_usd is None
        self.spent_usd += cost_usd or 0.0

    def open_cap(self, budget_usd: float | None, first_cost_usd: float) -> Cap | None:
        """What admits each request that comes; None without a budget. It serves one event loop."""
        if budget_usd is None:
            return None
        return Cap(
            budget_usd,
            first_cost_usd=first_cost_usd,
            spent_usd=self.spent_usd,
            num_billed=self.num_billed,
            num_unknown=self.num_unknown,
        )


def open_asker(settings: EvalSettings | AuditSettings, model: str, *, num_prompt_tokens: int) -> "Asker":
    """What asks a judge of the chat API, which can do the job by the endpoint's catalogue.

    Args:
        settings: Where the endpoint is, and what is known of prices.
        model: The slug.
        num_prompt_tokens: Of the longest prompt, estimated.

    Raises:
        ConfigError: There is no key, the catalogue says that the judge cannot do it, or the budget could not be held.
    """
    key = require_key(settings.openrouter_api_key, settings.base_url)
    offers = read_endpoint(settings.base_url, key)
    warn_of_unread(offers)
    check_model(offers, model, judge_demand(num_prompt_tokens), base_url=settings.base_url)
    found = find_prices(offers, model, (settings.prompt_price_usd, settings.completion_price_usd))
    prices = {} if found is None else {model: found}
    if not speaks_openrouter(settings.base_url):
        check_costs_known(
            settings.budget_usd,
            (model,),
            prices,
            base_url=settings.base_url,
            options="--prompt-price-usd and --completion-price-usd",
        )
    if found is not None:
        listed = f" (prices of {offers.date})" if offers.date and settings.prompt_price_usd is None else ""
        _log.info("the judge %s costs %s%s", model, found.per_million(), listed)
    first_cost_usd = (
        0.0 if found is None else float(found.cost_usd(prompt=num_prompt_tokens, completion=TOKENS_PER_SCORE))
    )
    warn_of_others = OtherModels(offers)
    return Asker(settings.base_url, model, key, prices, settings.budget_usd, first_cost_usd, warn_of_others)


@dataclass(frozen=True)
class Asker:
    """Asks one judge, as far as it answers and the budget reaches; `bill.stopped_by` says what ended it early.

    Attributes:
        base_url: Its endpoint.
        model: Its slug.
        key: Of the endpoint; empty: none.
        prices: By slug, used where the endpoint states no cost.
        budget_usd: None: no limit.
        first_cost_usd: What an answer is taken to cost until one has come; 0: nobody knows.
        on_answer: Told of the model that was asked, and of the one that answered.
        concurrency: Most requests in flight.
        bill: What was spent.
    """

    base_url: str
    model: str
    key: str
    prices: Mapping[str, Prices]
    budget_usd: float | None = None
    first_cost_usd: float = 0.0
    on_answer: Callable[[str, str], None] = lambda _asked, _answered: None
    concurrency: int = CONCURRENCY
    bill: Bill = field(default_factory=Bill)

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
            prices=self.prices,
            secret=self.key,
        )
        cap = self.bill.open_cap(self.budget_usd, self.first_cost_usd)
        waiting = iter(range(num))
        async with provider.open_post(
            self.base_url,
            key=self.key,
            num_connections=self.concurrency,
            connect_timeout_s=_CONNECT_TIMEOUT_S,
            read_timeout_s=_READ_TIMEOUT_S,
        ) as post:
            client = ChatClient(post, options, limit=AdaptiveLimit(self.concurrency), meter=cap)

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

        if self.bill.stopped_by is not None:
            return None
        await client.limit.acquire()
        try:
            answer = await client.ask(request, on_failure=count_failure)
        except NanosftError as exc:
            self.bill.stopped_by = self.bill.stopped_by or exc
            return None
        finally:
            client.limit.release()
        self.on_answer(self.model, answer.model)
        self.bill.add(answer.usage.cost_usd)
        return answer
