"""One row of the plan, from its prompt to an accepted conversation or to the day it is given up.

A rejected answer is asked for again with the gates' reasons in the prompt, up to `answers_per_prompt` times; then with
another prompt variant of the same cell; then the row is given up. A row knows of no other: whoever makes it says when a
request may be sent, and is told at once of every answer that was paid for and rejected.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from nanosft.conversation import Conversation
from nanosft.errors import ProviderError
from nanosft.generate.planning import PlanRow
from nanosft.generate.provider import Answer, Usage
from nanosft.generate.records import (
    ASKED_KEY,
    BATCH_KEY,
    PlanState,
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


def iter_jobs(state: PlanState, rows: Iterable[int], retries: RetryPolicy, *, retry_rejects: bool) -> Iterator[Job]:
    """Those rows that are neither in nor given up, and those given up where they are to be tried again."""
    for row in rows:
        if state.accepted[row] or (state.given_up[row] and not retry_rejects):
            continue
        earlier = state.rows.get(row, RowState())
        first_variant = earlier.prompt_variant + 1 if state.given_up[row] else 0
        begin = RowState(first_variant) if state.given_up[row] else earlier
        yield Job(row, begin, first_variant + retries.num_prompts - 1)


@dataclass(frozen=True, slots=True)
class AskAgain:
    """An answer was rejected, and the row is to be asked for once more."""


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
        used_s = 0.0
        while True:
            row = self.next_prompt(job)
            if job.state.waiting is not None:
                answer = _held_answer(job.state.waiting)
            else:
                answer, seconds = await self._ask(row, job.state, self.row_timeout_s - used_s, open_slot, on_reject)
                used_s += seconds
            outcome = await self.take(job, row, answer, on_reject)
            if not isinstance(outcome, AskAgain):
                return outcome

    def next_prompt(self, job: Job) -> PlanRow:
        """What the row is asked with next; its state goes on to another prompt where one has had all its answers."""
        state = job.state
        if state.num_rejected >= self.retries.answers_per_prompt and state.prompt_variant < job.last_variant:
            state.begin_variant(state.prompt_variant + 1)
        return self.plan_row(job.row, state.prompt_variant)

    async def take(
        self, job: Job, row: PlanRow, answer: Answer, on_reject: OnReject, *, batch: str | None = None
    ) -> Conversation | AskAgain | None:
        """Put an answer through the gates, then the judge: the conversation, AskAgain, or None of a row given up.

        Args:
            job: The row; its state is changed where the answer is rejected.
            row: What `next_prompt` returned.
            answer: The answer to it.
            on_reject: Gets the record of a rejected answer.
            batch: Name of the batch that the answer came with; None: it was asked for alone.
        """
        state = job.state
        verdict = await self.judge_answer(row, state, answer, on_reject, batch=batch)
        if isinstance(verdict, Conversation):
            return verdict
        is_last = state.num_rejected + 1 >= self.retries.answers_per_prompt
        given_up = is_last and state.prompt_variant >= job.last_variant
        on_reject(_reject(row, state.num_rejected, answer, verdict, given_up=given_up, batch=batch))
        state.add_rejection(verdict.detail)
        return None if given_up else AskAgain()

    def release(self, row: PlanRow, answer: Answer, on_reject: OnReject, *, batch: str) -> None:
        """Record that a batch brought the row no answer: the row loses no attempt by it."""
        assert answer.problem is not None, "a stand-in for an answer has a problem"
        on_reject(_reject(row, None, answer, Rejection((answer.problem.kind,), answer.problem.detail), batch=batch))

    async def judge_answer(
        self, row: PlanRow, state: RowState, answer: Answer, on_reject: OnReject, *, batch: str | None = None
    ) -> Conversation | Rejection:
        """What becomes of one answer: put through the gates, scored where it is due, and named in the meta.

        An answer that was accepted and not scored, because the judge does not answer or the process ends, is held.
        """
        verdict = await self.checker.check(row, answer)
        if not isinstance(verdict, Conversation):
            return verdict
        verdict = verdict.with_meta(**self._meta(row, state, answer, batch))
        if self.judge is None or not self.judge.is_due(row.row):
            return verdict

        def on_failure(failed: Answer) -> None:
            on_reject(judgement_record(failed, **_place_of(row)))

        try:
            judgement = await self.judge.score(row, verdict, on_failure)
        except BaseException:  # a cancelled task's too: what was written is paid for
            self.checker.forget(verdict)
            if state.waiting is None:
                held = held_record(answer, **_place_of(row), attempt=state.num_rejected)
                state.held = _named(held, row, batch)
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

    def _meta(self, row: PlanRow, state: RowState, answer: Answer, batch: str | None) -> dict[str, Any]:
        meta = row_meta(answer, **_place_of(row), attempt=state.num_rejected, source=self.source)
        if row.language:
            meta["language"] = row.language
        return _named(meta, row, batch)


def _reject(
    row: PlanRow,
    attempt: int | None,
    answer: Answer,
    rejection: Rejection,
    *,
    given_up: bool = False,
    batch: str | None = None,
) -> dict[str, Any]:
    record = reject_record(
        answer,
        **_place_of(row),
        attempt=attempt,
        reasons=rejection.reasons,
        detail=rejection.detail,
        given_up=given_up,
    )
    if rejection.judge is not None:
        record["judge"] = rejection.judge
    return _named(record, row, batch)


def _place_of(row: PlanRow) -> dict[str, Any]:
    """Where in the plan an answer stands, as every record of one says."""
    return {"row": row.row, "cell": row.cell, "prompt_variant": row.prompt_variant}


def _named(record: dict[str, Any], row: PlanRow, batch: str | None) -> dict[str, Any]:
    """A record that names the batch that its answer came with, and the model asked where another name answered."""
    if batch is not None:
        record[BATCH_KEY] = batch
    if row.model not in ("", record["model"]):
        record[ASKED_KEY] = row.model
    return record


def _held_answer(record: Mapping[str, Any]) -> Answer:
    """The answer that a record holds; it was counted with the record, and costs nothing more."""
    return Answer(record["raw"], record["raw"], record["finish_reason"], record["model"], Usage(cost_usd=0.0))
