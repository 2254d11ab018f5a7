"""Asks a chat API for verdicts on an evaluation's answers: `nanosft eval --judge-model SLUG`.

It stands above the stages, as the demo does: the client is generate's, and what is asked is evaluate's. An evaluation
is never lost to its judge: where the API fails or the budget is reached, what came until then is kept, and the rest
is counted.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from nanosft.errors import NanosftError
from nanosft.evaluate.second_opinion import AskJudge, Opinion, Opinions, make_response_format, parse_opinion
from nanosft.generate import provider
from nanosft.generate.provider import (
    AdaptiveLimit,
    Answer,
    ChatClient,
    ChatRequest,
    ClientOptions,
    require_key,
    speaks_openrouter,
)
from nanosft.progress import Bar
from nanosft.settings.evaluate import EvalSettings

_CONCURRENCY: Final = 16
_MAX_TOKENS: Final = 512
_MAX_RETRIES: Final = 8
_CONNECT_TIMEOUT_S: Final = 10.0
_READ_TIMEOUT_S: Final = 120.0
_log = logging.getLogger(__name__)


@dataclass
class _Bill:
    """What was spent, and whether another request still fits.

    Attributes:
        budget_usd: None: no limit.
        spent_usd: Known costs.
        num_requests: Exchanges that may have cost something.
        num_unknown: Those whose cost nobody stated.
        dearest_usd: The most that one cost: what each request in flight is taken for.
        stopped: Nothing more is asked.
        in_flight: Requests under way.
        finished: Set whenever one ends.
    """

    budget_usd: float | None
    spent_usd: float = 0.0
    num_requests: int = 0
    num_unknown: int = 0
    dearest_usd: float = 0.0
    stopped: bool = False
    in_flight: int = 0
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, answer: Answer) -> None:
        """Count an exchange; one of unknown cost is taken for the dearest."""
        cost_usd = answer.usage.cost_usd
        self.num_requests += 1
        self.num_unknown += cost_usd is None
        self.spent_usd += cost_usd or 0.0
        self.dearest_usd = max(self.dearest_usd, cost_usd or 0.0)

    async def admit(self) -> bool:
        """Whether to ask once more. The first request goes alone, since nothing is known of its cost."""
        while self.budget_usd is not None and not self.stopped:
            if self.num_requests or not self.in_flight:
                held_usd = (self.in_flight + self.num_unknown + 1) * self.dearest_usd
                if self.spent_usd + held_usd <= self.budget_usd:
                    break
                if not self.in_flight:
                    self.stopped = True
                    _log.warning("the judge's budget of %s USD is reached", self.budget_usd)
                    return False
            self.finished.clear()
            await self.finished.wait()
        if not self.stopped:
            self.in_flight += 1
        return not self.stopped

    def leave(self) -> None:
        """A request has ended."""
        self.in_flight -= 1
        self.finished.set()


def make_judge(settings: EvalSettings) -> AskJudge | None:
    """What asks the judge that the settings name; None where they name none.

    Raises:
        ConfigError: There is no key.
    """
    if settings.judge_model is None:
        return None
    key = require_key(settings.openrouter_api_key, settings.base_url)
    return partial(_ask, settings, settings.judge_model, key)


def _ask(settings: EvalSettings, model: str, key: str, prompts: Sequence[list[dict[str, str]]]) -> Opinions:
    """One opinion a prompt, as far as the API and the budget reach."""
    return asyncio.run(_ask_all(settings, model, key, prompts))


async def _ask_all(settings: EvalSettings, model: str, key: str, prompts: Sequence[list[dict[str, str]]]) -> Opinions:
    options = ClientOptions(
        models=(model,),
        endpoint=settings.base_url,
        openrouter=speaks_openrouter(settings.base_url),
        max_retries=_MAX_RETRIES,
        prompt_price_usd=settings.prompt_price_usd or 0.0,
        completion_price_usd=settings.completion_price_usd or 0.0,
        secret=key,
    )
    bill = _Bill(settings.budget_usd)
    opinions: list[Opinion | None] = [None] * len(prompts)
    waiting = iter(range(len(prompts)))
    async with provider.open_post(
        settings.base_url,
        key=key,
        num_connections=_CONCURRENCY,
        connect_timeout_s=_CONNECT_TIMEOUT_S,
        read_timeout_s=_READ_TIMEOUT_S,
    ) as post:
        limit = AdaptiveLimit(_CONCURRENCY)
        client = ChatClient(post, options, limit=limit)
        with Bar("judge", len(prompts)) as bar:

            async def work() -> None:
                for place in waiting:
                    if not await bill.admit():
                        return
                    await limit.acquire()
                    try:
                        answer = await client.ask(_request(prompts[place]), on_failure=bill.add)
                        bill.add(answer)
                    except NanosftError as exc:
                        if not bill.stopped:
                            _log.warning("the judge is asked no more: %s", exc)
                        bill.stopped = True
                        return
                    finally:
                        limit.release()
                        bill.leave()
                    opinions[place] = None if answer.problem else parse_opinion(answer.text)
                    bar.advance(cost_usd=round(bill.spent_usd, 6))

            async with asyncio.TaskGroup() as group:
                for _ in range(_CONCURRENCY):
                    group.create_task(work())
    return Opinions(model, tuple(opinions), bill.spent_usd, bill.num_requests, bill.num_unknown)


def _request(messages: list[dict[str, str]]) -> ChatRequest:
    return ChatRequest(messages, response_format=make_response_format(), max_tokens=_MAX_TOKENS, temperature=0.0)
