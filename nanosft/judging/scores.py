"""Scores of a set's conversations: `nanosft audit --judge-model`."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from nanosft.audit.judge import AskScores, Take
from nanosft.errors import ConfigError
from nanosft.generate.provider import (
    LOCAL_MODEL,
    Answer,
    ChatRequest,
    require_key,
    serve_local_model,
    speaks_openrouter,
    unfence,
    write_fixed_part,
)
from nanosft.judging.asking import Asker, Bill
from nanosft.quality.scores import JUDGE_TEMPERATURES, MAX_TOKENS, NUM_TRIES, JudgeReply
from nanosft.settings.audit import AuditSettings
from nanosft.settings.judge import LOCAL_JUDGE


def make_scorer(settings: AuditSettings) -> AbstractContextManager[AskScores | None]:
    """What asks for scores the judge that the settings of `audit` name, while it is open; None where they name none.

    Raises:
        ConfigError: There is no key, or nothing to hold the budget against.
    """
    if settings.judge_model is None:
        return nullcontext()
    if settings.judge_model == LOCAL_JUDGE:
        return _open_local_scorer(settings)
    key = require_key(settings.openrouter_api_key, settings.base_url)
    is_priced = settings.prompt_price_usd is not None or settings.completion_price_usd is not None
    if settings.budget_usd is not None and not speaks_openrouter(settings.base_url) and not is_priced:
        raise ConfigError(
            f"--budget-usd: {settings.base_url} may state no cost: give --prompt-price-usd and --completion-price-usd"
        )
    return nullcontext(
        _Scorer(Asker(settings, settings.base_url, settings.judge_model, key, Bill(settings.budget_usd)))
    )


@contextmanager
def _open_local_scorer(settings: AuditSettings) -> Iterator[AskScores]:
    with serve_local_model() as base_url:
        yield _Scorer(Asker(settings, base_url, LOCAL_MODEL, "", Bill(None), concurrency=1))


@dataclass(frozen=True)
class _Scorer:
    """Asks for scores, chunk by chunk, under one bill."""

    asker: Asker

    @property
    def model(self) -> str:
        """Who is asked."""
        return self.asker.model

    def count_earlier(self, costs_usd: Iterable[float | None]) -> None:
        """Count what earlier runs have paid."""
        for cost_usd in costs_usd:
            self.asker.bill.add(cost_usd)

    def ask(self, task: str, cases: Sequence[str], response_format: dict[str, Any], take: Take) -> None:
        """Ask about each case until an answer can be used, `NUM_TRIES` times at most.

        Raises:
            NanosftError: The judge does not answer, or the budget is reached; `take` has got what came.
        """
        fixed_part = write_fixed_part(task, model=self.model)

        def write(place: int, number: int) -> ChatRequest:
            return ChatRequest(
                [fixed_part, {"role": "user", "content": cases[place]}],
                response_format=response_format,
                max_tokens=MAX_TOKENS,
                temperature=JUDGE_TEMPERATURES[number > 0],
                seed=number,
            )

        asyncio.run(
            self.asker.ask(write, len(cases), lambda place, answer: take(place, _to_reply(answer)), num_tries=NUM_TRIES)
        )
        if self.asker.bill.stopped_by is not None:
            raise self.asker.bill.stopped_by


def _to_reply(answer: Answer) -> JudgeReply:
    usage = answer.usage
    tokens = {"prompt": usage.prompt_tokens, "cached": usage.cached_tokens, "completion": usage.completion_tokens}
    text = unfence(answer.text) if answer.problem is None else None
    detail = answer.problem.detail if answer.problem is not None else "the judge's answer cannot be read"
    return JudgeReply(text, detail, answer.model, usage.cost_usd, tokens)
