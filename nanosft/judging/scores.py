"""Scores of a set's conversations: `nanosft audit --judge-model`."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from nanosft.audit.judge import AskScores, Take
from nanosft.generate.provider import (
    LOCAL_MODEL,
    Answer,
    ChatRequest,
    serve_local_model,
    unfence,
    write_fixed_part,
)
from nanosft.judging.asking import Asker, open_asker
from nanosft.knowledge import estimate_tokens, read_knowledge
from nanosft.quality.scores import (
    JUDGE_TEMPERATURES,
    MAX_TOKENS,
    NUM_TRIES,
    JudgeReply,
    list_criteria,
    write_task,
)
from nanosft.settings.audit import AuditSettings
from nanosft.settings.judge import LOCAL_JUDGE

_CONVERSATION_TOKENS: Final = 1000
"""What a conversation of a set is taken to be that nobody has read yet."""


def make_scorer(settings: AuditSettings) -> AbstractContextManager[AskScores | None]:
    """What asks for scores the judge that the settings of `audit` name, while it is open; None where they name none.

    Raises:
        ConfigError: There is no key, the judge cannot do the job, or there is nothing to hold the budget against.
        DataError: The knowledge base cannot be read.
    """
    if settings.judge_model is None:
        return nullcontext()
    if settings.judge_model == LOCAL_JUDGE:
        return _open_local_scorer()
    known = read_knowledge(settings.knowledge) if settings.knowledge is not None else None
    task = write_task(known, list_criteria(has_course=False))
    num_prompt_tokens = estimate_tokens(task) + _CONVERSATION_TOKENS
    return nullcontext(_Scorer(open_asker(settings, settings.judge_model, num_prompt_tokens=num_prompt_tokens)))


@contextmanager
def _open_local_scorer() -> Iterator[AskScores]:
    with serve_local_model() as base_url:
        yield _Scorer(Asker(base_url, LOCAL_MODEL, "", {}, concurrency=1))


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
