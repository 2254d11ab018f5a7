"""One row of the plan, from its prompt to an accepted conversation or to the day it is given up.

A rejected answer is asked for again with the gates' reasons in the prompt, up to `answers_per_prompt` times; then with
another prompt variant of the same cell; then the row is given up. A row knows of no other: whoever makes it says when a
request may be sent, and is told at once of every answer that was paid for and rejected.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from nanosft.conversation import Conversation
from nanosft.errors import ProviderError
from nanosft.generate.planning import PlanRow
from nanosft.generate.provider import Answer
from nanosft.generate.records import RowState, judge_meta
from nanosft.generate.rows.checker import AnswerChecker, NotComparedError, Rejection, Verdict
from nanosft.generate.rows.jobs import Job, RetryPolicy
from nanosft.generate.rows.judge import Judge
from nanosft.generate.rows.lines import (
    failure_line,
    held_answer,
    held_line,
    judgement_line,
    meta_of,
    reject_line,
    useless_line,
)
from nanosft.quality.scores import LOW_SCORE, NUM_TRIES, Score

Ask = Callable[[PlanRow, int, Sequence[str], Callable[[Answer], None]], Awaitable[Answer]]
"""Ask for a row: its plan row, the attempt, why earlier answers were rejected, and who is told of billed failures."""
OpenSlot = Callable[[], AbstractAsyncContextManager[None]]
"""A context in which one request may be in flight; entering it waits for a slot, or raises `ShuttingDown`."""
OnReject = Callable[[dict[str, Any]], None]
"""Gets the record of each answer that was rejected or never came, as soon as that is known."""


class ShuttingDown(Exception):  # noqa: N818 - a state of the process, not an error
    """The process is stopping: the row asks for nothing more. Caught where rows are started."""


@dataclass(frozen=True, slots=True)
class AskAgain:
    """An answer was rejected, and the row is to be asked for once more."""


@dataclass(frozen=True, slots=True)
class AwaitsScore:
    """An answer was accepted and is held in the store: the judge is to be asked about it."""


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
    _known: set[int] = field(default_factory=set, init=False)
    """Rows whose held answer the checker has accepted in this process, and not forgotten."""

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
                answer = held_answer(job.state.waiting)
            else:
                answer, seconds = await self._ask(row, job.state, self.row_timeout_s - used_s, open_slot, on_reject)
                used_s += seconds
            outcome = await self.take(job, row, answer, on_reject)
            if not isinstance(outcome, AskAgain):
                return outcome

    def next_prompt(self, job: Job) -> PlanRow:
        """What the row is asked with next; its state goes on to another prompt where one has had all its answers."""
        state = job.state
        is_used_up = state.num_rejected >= self.retries.answers_per_prompt and state.waiting is None
        if is_used_up and state.prompt_variant < job.last_variant:
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
        verdict = await self._judge(row, job.state, answer, on_reject, batch)
        return self._end(job, row, answer, verdict, on_reject, batch)

    async def hold(
        self, job: Job, row: PlanRow, answer: Answer, on_reject: OnReject, *, batch: str | None = None
    ) -> Conversation | AskAgain | AwaitsScore | None:
        """As `take`, but the judge is not asked: an accepted answer that is to be scored is put down, to be settled.

        An answer that is held already is put through the gates anew, and not put down again.
        """
        verdict = await self._check(row, job.state, answer, on_reject, batch)
        if isinstance(verdict, Rejection) or not self.is_due(row.row):
            return self._end(job, row, answer, verdict, on_reject, batch)
        self._put_down(row, job.state, answer, on_reject, batch)
        self._known.add(row.row)
        return AwaitsScore()

    async def settle(
        self, job: Job, row: PlanRow, judged: Answer, on_reject: OnReject, *, batch: str
    ) -> Conversation | AskAgain | AwaitsScore | None:
        """What becomes of a held answer by what the judge's batch brought of it; AwaitsScore: it cannot be read."""
        assert job.state.held is not None, "what is scored in a batch was held before"
        answer = held_answer(job.state.held)
        verdict = await self._check(row, job.state, answer, on_reject, batch)
        if isinstance(verdict, Rejection):  # nearly repeats what was accepted meanwhile: the score is of no use
            on_reject(useless_line(row, judged, verdict, batch=batch))
            return self._end(job, row, answer, verdict, on_reject, batch)
        assert self.judge is not None, "who asked has a judge"
        score = self.judge.read(judged)
        if score is None:
            self._add_try(row, job.state, answer, judged, on_reject, batch)
            if job.state.num_tries < NUM_TRIES:
                self._known.add(row.row)
                return AwaitsScore()
        return self._end(job, row, answer, self._weigh(verdict, score, judged), on_reject, batch)

    def release(self, row: PlanRow, answer: Answer, on_reject: OnReject, *, batch: str) -> None:
        """Record that a batch brought the row no answer: the row loses no attempt by it."""
        on_reject(failure_line(row, answer, batch=batch))

    def release_score(self, row: PlanRow, judged: Answer, on_reject: OnReject, *, batch: str) -> None:
        """Record that a judge's batch brought the row no answer: the judge loses no try by it."""
        on_reject(judgement_line(row, judged, batch=batch))

    def is_due(self, row: int) -> bool:
        """Whether the row, once it is accepted, is to be scored."""
        return self.judge is not None and self.judge.is_due(row)

    async def _check(
        self, row: PlanRow, state: RowState, answer: Answer, on_reject: OnReject, batch: str | None
    ) -> Verdict:
        """The gates' verdict, with the meta of an accepted conversation; one that cannot be compared now is held."""
        try:
            verdict = await self.checker.check(row, answer, is_known=row.row in self._known)
        except NotComparedError as exc:
            self._put_down(row, state, answer, on_reject, batch)
            raise ShuttingDown from exc
        self._known.discard(row.row)
        if isinstance(verdict, Rejection):
            return verdict
        return verdict.with_meta(**meta_of(row, state.num_rejected, answer, source=self.source, batch=batch))

    async def _judge(
        self, row: PlanRow, state: RowState, answer: Answer, on_reject: OnReject, batch: str | None
    ) -> Verdict:
        """What becomes of one answer: put through the gates, scored where it is due, and named in the meta.

        An answer that was accepted and not scored, because the judge does not answer or the process ends, is held.
        """
        verdict = await self._check(row, state, answer, on_reject, batch)
        if isinstance(verdict, Rejection) or self.judge is None or not self.is_due(row.row):
            return verdict

        def on_failure(judged: Answer) -> None:
            on_reject(judgement_line(row, judged))

        def on_unread(judged: Answer) -> None:
            self._add_try(row, state, answer, judged, on_reject, None)

        try:
            num_tries = state.count_tries(answer.raw)
            judgement = await self.judge.score(row, verdict, on_failure, on_unread, num_tries=num_tries)
        except BaseException:  # a cancelled task's too: what was written is paid for
            self.checker.forget(verdict)
            self._put_down(row, state, answer, on_reject, batch)
            raise
        return self._weigh(verdict, judgement.score, judgement.answer)

    def _put_down(self, row: PlanRow, state: RowState, answer: Answer, on_reject: OnReject, batch: str | None) -> None:
        """Hold an accepted answer, unless it is held."""
        if state.waiting is None:
            state.held = held_line(row, state.num_rejected, answer, batch=batch)
            on_reject(state.held)

    def _add_try(
        self, row: PlanRow, state: RowState, answer: Answer, judged: Answer, on_reject: OnReject, batch: str | None
    ) -> None:
        on_reject(judgement_line(row, judged, tried=(state.num_rejected, answer), batch=batch))
        state.add_try(answer.raw)

    def _weigh(self, conversation: Conversation, score: Score | None, judged: Answer) -> Verdict:
        """The conversation with its score in the meta, or its rejection for one that is too low."""
        assert self.judge is not None, "who was asked is a judge"
        meta = judge_meta(score, judged)
        if score is None or not self.judge.refuses(score):
            return conversation.with_meta(judge=meta)
        self.checker.forget(conversation)
        return Rejection((f"judge/{LOW_SCORE}",), score.explain(self.judge.min_score or 0), meta)

    def _end(
        self,
        job: Job,
        row: PlanRow,
        answer: Answer,
        verdict: Verdict,
        on_reject: OnReject,
        batch: str | None,
    ) -> Conversation | AskAgain | None:
        if isinstance(verdict, Conversation):
            return verdict
        state = job.state
        is_last = state.num_rejected + 1 >= self.retries.answers_per_prompt
        given_up = is_last and state.prompt_variant >= job.last_variant
        held, attempt = state.waiting, state.num_rejected
        on_reject(reject_line(row, attempt, answer, verdict, given_up=given_up, batch=batch, held=held))
        state.add_rejection(verdict.detail)
        return None if given_up else AskAgain()

    async def _ask(
        self, row: PlanRow, state: RowState, timeout_s: float, open_slot: OpenSlot, on_reject: OnReject
    ) -> tuple[Answer, float]:
        """The answer, and the seconds that it took."""

        def on_failure(answer: Answer) -> None:
            on_reject(failure_line(row, answer))

        async with open_slot():
            started_s = time.monotonic()
            try:
                async with asyncio.timeout(timeout_s):
                    answer = await self.ask(row, state.num_rejected, state.details, on_failure)
            except TimeoutError as exc:
                raise ProviderError(f"row {row.row} took longer than {self.row_timeout_s:g} s") from exc
        return answer, time.monotonic() - started_s
