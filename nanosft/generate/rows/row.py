"""One row of the plan, from its prompt to an accepted conversation or to the day it is given up.

A refused answer is asked for again with the gates' reasons in the prompt, up to `num_attempts` times; then with a fresh
prompt of the same cell; then the row is given up. Rows of one process share the near-duplicate index and the buffer of
the part that is flushed next; all of this runs on one event loop.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from nanosft.conversation import Conversation, to_line
from nanosft.generate.planning.plan import PlanRow
from nanosft.generate.provider.answers import Answer
from nanosft.generate.provider.limits import AdaptiveLimit
from nanosft.generate.records.parts import PartBuffer, RowState
from nanosft.generate.records.totals import Tally, reject_record, row_meta
from nanosft.generate.rows.budget import Budget
from nanosft.generate.rows.judge import Judge, Refusal

Ask = Callable[[PlanRow, int, Sequence[str], Callable[[Answer], None]], Awaitable[Answer]]
"""Ask for a row: its plan row, the attempt, why earlier answers were refused, and who is told of billed failures."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often a row is tried.

    Attributes:
        per_prompt: Answers per prompt.
        num_prompts: Prompts: the row's own and fresh ones of its cell.
    """

    per_prompt: int
    num_prompts: int


class StoppedError(Exception):
    """The process is stopping: the row asks for nothing more. Caught where rows are started."""


@dataclass
class RowMaker:
    """Makes rows and keeps what comes of them.

    Attributes:
        plan_row: The plan: (row number, fresh) -> PlanRow.
        ask: Who writes.
        attempts: How often.
        judge: Who accepts.
        buffer: Gets the lines.
        tally: Gets the counts.
        budget: None: no limit.
        limit: Places for requests in flight.
        row_timeout_s: Seconds for all answers to one row together, retries and waits of the client included.
        source: What accepted conversations name as their `meta.source`.
        is_stopping: Set once the process is to stop.
        refusals: How often each reason refused an answer of this process, for the progress shown.
    """

    plan_row: Callable[[int, int], PlanRow]
    ask: Ask
    attempts: Attempts
    judge: Judge
    buffer: PartBuffer
    tally: Tally
    budget: Budget | None
    limit: AdaptiveLimit
    row_timeout_s: float
    source: str
    is_stopping: bool = False
    refusals: Counter[str] = field(default_factory=Counter)

    async def make(self, number: int, state: RowState, last_fresh: int) -> bool:
        """Try the row until it is accepted (True) or given up (False).

        Args:
            number: The row's.
            state: What earlier answers left; changed as attempts are made.
            last_fresh: The last prompt to be tried.

        Raises:
            StoppedError: The process is stopping.
            TimeoutError: The row took longer than it may.
            NanosftError: Of the provider and the budget.
        """
        used_s = 0.0
        while True:
            if state.num_refused >= self.attempts.per_prompt and state.fresh < last_fresh:
                state.fresh, state.num_refused, state.details = state.fresh + 1, 0, []
            row = self.plan_row(number, state.fresh)
            answer, seconds = await self._ask(row, state, self.row_timeout_s - used_s)
            used_s += seconds
            verdict = await self.judge.judge(row, answer)
            if isinstance(verdict, Conversation):
                self._accept(row, state, answer, verdict)
                return True
            given_up = state.fresh >= last_fresh and state.num_refused + 1 >= self.attempts.per_prompt
            self._refuse(row, state.num_refused, answer, verdict, given_up=given_up)
            state.num_refused += 1
            state.details.append(verdict.detail)
            if given_up:
                return False

    async def _ask(self, row: PlanRow, state: RowState, timeout_s: float) -> tuple[Answer, float]:
        """The answer, and the seconds that it took."""

        def on_failure(answer: Answer) -> None:
            assert answer.problem is not None, "a failure has a problem"
            self._spend(answer)
            self._refuse(row, None, answer, Refusal((answer.problem.kind,), answer.problem.detail), given_up=False)

        await self.limit.acquire()
        try:
            if self.is_stopping:
                raise StoppedError
            if self.budget is not None:
                await self.budget.admit()
            started_s = time.monotonic()
            try:
                async with asyncio.timeout(timeout_s):
                    answer = await self.ask(row, state.num_refused, state.details, on_failure)
            finally:
                if self.budget is not None:
                    self.budget.withdraw()
        finally:
            self.limit.release()
        self._spend(answer)
        return answer, time.monotonic() - started_s

    def _spend(self, answer: Answer) -> None:
        if self.budget is not None:
            self.budget.spend(answer.usage.cost_usd)

    def _accept(self, row: PlanRow, state: RowState, answer: Answer, conversation: Conversation) -> None:
        meta = row_meta(
            answer, row=row.row, cell=row.cell, fresh=state.fresh, attempt=state.num_refused, source=self.source
        )
        conversation = conversation.with_meta(**meta)
        self.buffer.add_row(to_line(conversation))
        self.tally.add_row(conversation.meta)

    def _refuse(self, row: PlanRow, attempt: int | None, answer: Answer, refusal: Refusal, *, given_up: bool) -> None:
        record = reject_record(
            answer,
            row=row.row,
            cell=row.cell,
            fresh=row.fresh,
            attempt=attempt,
            reasons=refusal.reasons,
            detail=refusal.detail,
        )
        record["given_up"] = given_up
        self.buffer.add_reject(record)
        self.tally.add_reject(record)
        self.refusals[refusal.reasons[0]] += 1
