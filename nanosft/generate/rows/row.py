"""One row of the plan, from its prompt to an accepted conversation or to the day it is given up.

A rejected answer is asked for again with the gates' reasons in the prompt, up to `answers_per_prompt` times; then with
another prompt variant of the same cell; then the row is given up. A row knows of no other: whoever makes it says when a
request may be sent, and is told at once of every answer that was paid for and rejected.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from nanosft.conversation import Conversation
from nanosft.errors import ProviderError
from nanosft.generate.planning import PlanRow
from nanosft.generate.provider import Answer, Usage
from nanosft.generate.records import (
    RowState,
    held_record,
    judge_meta,
    judgement_record,
    reject_record,
    row_meta,
)
from nanosft.generate.rows.checker import AnswerChecker, Rejection
from nanosft.generate.rows.judge import Judge
from nanosft.quality.scores import LOW_SCORE

Ask = Callable[[PlanRow, int, Sequence[str], Callable[[Answer], None]], Awaitable[Answer]]
"""Ask for a row: its plan row, the attempt, why earlier answers were rejected, and who is told of billed failures."""
OpenSlot = Callable[[], AbstractAsyncContextManager[None]]
"""A context in which one request may be in flight; entering it waits for a slot, or raises `ShuttingDown`."""
OnReject = Callable[[dict[str, Any]], None]
"""Gets the record of each answer that was rejected or never came, as soon as that is known."""


class ShuttingDown(Exception):  # noqa: N818 - a state of the process, not an error
    """The process is stopping: the row asks for nothing more. Caught where rows are started."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a row is tried.

    Attributes:
        answers_per_prompt: Answers to one prompt.
        num_prompts: The row's own prompt and the variants of it.
    """

    answers_per_prompt: int
    num_prompts: int


@dataclass(frozen=True, slots=True)
class Job:
    """One row to be made: its number, what earlier answers left, and the last prompt variant to try."""

    row: int
    state: RowState
    last_variant: int


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Makes rows, each independently of all others.

    Attributes:
        plan_row: The plan: (row number, prompt variant) -> PlanRow.
        ask: Who writes.
        retries: How often a row is tried.
        checker: Who accepts.
        judge: Who scores what was accepted; None: nobody.
        row_timeout_s: Seconds for all answers to one row together, retries and waits of the client included.
        source: What accepted conversations name as their `meta.source`.
    """

    plan_row: Callable[[int, int], PlanRow]
    ask: Ask
    retries: RetryPolicy
    checker: AnswerChecker
    judge: Judge | None
    row_timeout_s: float
    source: str

    async def make(self, job: Job, open_slot: OpenSlot, on_reject: OnReject) -> Conversation | None:
        """The row's conversation once an answer is accepted; None when the row is given up.

        Args:
            job: The row; its state is changed as answers are rejected.
            open_slot: Lets one request be in flight.
            on_reject: Gets the record of each rejected answer.

        Raises:
            ShuttingDown: The process is stopping.
            ProviderError: No answer came, or none in time.
            NanosftError: The provider or the budget fails.
        """
        state = job.state
        used_s = 0.0
        while True:
            if state.num_rejected >= self.retries.answers_per_prompt and state.prompt_variant < job.last_variant:
                state.begin_variant(state.prompt_variant + 1)
            row = self.plan_row(job.row, state.prompt_variant)
            if state.waiting is not None:
                answer = _held_answer(state.waiting)
            else:
                answer, seconds = await self._ask(row, state, self.row_timeout_s - used_s, open_slot, on_reject)
                used_s += seconds
            verdict = await self.judge_answer(row, state, answer, on_reject)
            if isinstance(verdict, Conversation):
                return verdict
            is_last = state.num_rejected + 1 >= self.retries.answers_per_prompt
            given_up = is_last and state.prompt_variant >= job.last_variant
            on_reject(_reject(row, state.num_rejected, answer, verdict, given_up=given_up))
            state.add_rejection(verdict.detail)
            if given_up:
                return None

    async def judge_answer(
        self, row: PlanRow, state: RowState, answer: Answer, on_reject: OnReject
    ) -> Conversation | Rejection:
        """What becomes of one answer: put through the gates, scored where it is due, and named in the meta.

        An answer that was accepted and not scored, because the judge does not answer or the process ends, is held.
        """
        verdict = await self.checker.check(row, answer)
        if not isinstance(verdict, Conversation):
            return verdict
        verdict = verdict.with_meta(**self._meta(row, state, answer))
        if self.judge is None or not self.judge.is_due(row.row):
            return verdict

        def on_failure(failed: Answer) -> None:
            on_reject(judgement_record(failed, row=row.row, cell=row.cell, prompt_variant=row.prompt_variant))

        try:
            judgement = await self.judge.score(row, verdict, on_failure)
        except BaseException:  # a cancelled task's too: what was written is paid for
            self.checker.forget(verdict)
            if state.waiting is None:
                state.held = held_record(
                    answer,
                    row=row.row,
                    cell=row.cell,
                    prompt_variant=state.prompt_variant,
                    attempt=state.num_rejected,
                )
                on_reject(state.held)
            raise
        meta = judge_meta(judgement.score, judgement.answer)
        if judgement.score is None or not self.judge.refuses(judgement.score):
            return verdict.with_meta(judge=meta)
        self.checker.forget(verdict)
        return Rejection((f"judge/{LOW_SCORE}",), judgement.score.explain(self.judge.min_score or 0), meta)

    async def _ask(
        self, row: PlanRow, state: RowState, timeout_s: float, open_slot: OpenSlot, on_reject: OnReject
    ) -> tuple[Answer, float]:
        """The answer, and the seconds that it took."""

        def on_failure(answer: Answer) -> None:
            assert answer.problem is not None, "a failure has a problem"
            on_reject(_reject(row, None, answer, Rejection((answer.problem.kind,), answer.problem.detail)))

        async with open_slot():
            started_s = time.monotonic()
            try:
                async with asyncio.timeout(timeout_s):
                    answer = await self.ask(row, state.num_rejected, state.details, on_failure)
            except TimeoutError as exc:
                raise ProviderError(f"row {row.row} took longer than {self.row_timeout_s:g} s") from exc
        return answer, time.monotonic() - started_s

    def _meta(self, row: PlanRow, state: RowState, answer: Answer) -> dict[str, Any]:
        return row_meta(
            answer,
            row=row.row,
            cell=row.cell,
            prompt_variant=state.prompt_variant,
            attempt=state.num_rejected,
            source=self.source,
        )


def _reject(
    row: PlanRow, attempt: int | None, answer: Answer, rejection: Rejection, *, given_up: bool = False
) -> dict[str, Any]:
    record = reject_record(
        answer,
        row=row.row,
        cell=row.cell,
        prompt_variant=row.prompt_variant,
        attempt=attempt,
        reasons=rejection.reasons,
        detail=rejection.detail,
        given_up=given_up,
    )
    return record if rejection.judge is None else {**record, "judge": rejection.judge}


def _held_answer(record: Mapping[str, Any]) -> Answer:
    """The answer that a record holds; it was counted with the record, and costs nothing more."""
    return Answer(record["raw"], record["raw"], record["finish_reason"], record["model"], Usage(cost_usd=0.0))
