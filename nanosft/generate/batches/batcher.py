"""The rows of a shard in batches: recorded, sent, waited for, taken, and what was refused sent once more.

    batcher = Batcher(…)
    rest = await batcher.run(jobs, runner)    # as a `MakeSome`: the rows that it leaves are asked for one by one

What may be lost is in the store before anything depends on it: the record before the batch is sent, the results before
they are judged, a row's line before the batch counts as done. So a process that is killed anywhere leaves what the next
one needs to go on, and no row is in two batches at once.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from nanosft.errors import BatchesPendingError, ConfigError, CreditError, ProviderError
from nanosft.generate.batches.api import BatchApi, BatchStatus, Draft, RefusedBatchError
from nanosft.generate.batches.journal import Journal, OpenBatch
from nanosft.generate.batches.look import look_at, read_results
from nanosft.generate.batches.policy import BatchPolicy
from nanosft.generate.batches.record import BatchRecord, RowRequest, RowResult
from nanosft.generate.batches.sent import REFUSED, SentBatch
from nanosft.generate.batches.settle import TokenPrices, settle, to_answer
from nanosft.generate.planning import PlanRow
from nanosft.generate.records import usd_of
from nanosft.generate.rows import AskAgain, Budget, Job, RowMaker, Runner

_MAX_OPEN: Final = 64
"""Batches of one process that are with the provider at once: their results are read one after the other."""
_MAX_FAILED_IN_A_ROW: Final = 3
_MAX_RELEASES: Final = 2
"""A row that came back from so many batches without an answer is asked for alone."""
_TAKEN_AT_ONCE: Final = 64

WriteFields = Callable[[PlanRow, int, Sequence[str]], Mapping[str, Any]]
"""The fields of a chat request without its model: of a plan row, the attempt, and why earlier answers were rejected."""


@dataclass
class Batcher:
    """Makes rows in batches. Used from one event loop.

    Attributes:
        api: The provider.
        journal: What is in the store of batches.
        pending: What `Journal.read_open` returned.
        taken: Rows of those whose answers are in parts, by the batch's name.
        shard: Rows of this process.
        maker: Makes prompts, and puts answers through the gates.
        write_fields: Writes a request.
        model_of: The slug that a row goes to.
        prices_of: By slug: what tokens cost where the provider states none.
        on_answer: Told of the model that was asked, and of the one that answered.
        budget: None: no limit.
        policy: How batches are made.
    """

    api: BatchApi
    journal: Journal
    pending: Sequence[OpenBatch]
    taken: Mapping[str, set[int]]
    shard: range
    maker: RowMaker
    write_fields: WriteFields
    model_of: Callable[[PlanRow], str]
    prices_of: Callable[[str], TokenPrices]
    on_answer: Callable[[str, str], None]
    budget: Budget | None
    policy: BatchPolicy
    _open: list[SentBatch] = field(default_factory=list)
    _again: list[Job] = field(default_factory=list)  # refused or released, to be sent with the next batch
    _alone: list[Job] = field(default_factory=list)
    _releases: Counter[int] = field(default_factory=Counter)
    _num_failed_in_a_row: int = 0
    _is_out_of_money: bool = False
    _is_refused: bool = False

    async def run(self, jobs: Iterable[Job], runner: Runner) -> Iterable[Job]:
        """Make rows in batches; returns those that are to be asked for one by one.

        Raises:
            BatchesPendingError: Batches are with the provider, and nobody waits for them.
            CreditError: No credit, or the budget allows no more.
            ConfigError: The provider takes no batch.
            ProviderError: It fails, or batch after batch does.
        """
        fresh = self._adopt(jobs)
        if not self.policy.size:
            await runner.make_each(fresh)
            fresh = iter(())
        for opened in [item for item in self._open if item.needs_submit]:
            await self._submit(opened, is_again=True)
        while True:
            rest = await self._send_all(fresh)
            if not self._open:
                return rest
            num_ended = await self._take_ended(runner)
            if num_ended:
                continue
            if not self.policy.wait:
                raise BatchesPendingError(
                    f"{len(self._open)} batches of {sum(len(item.record.requests) for item in self._open)} rows are "
                    "with the provider, and all is recorded: run the same command again to take their results"
                )
            await asyncio.sleep(self.policy.poll_s)

    def _adopt(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Take over what earlier processes have sent; returns the rows that are in none of their batches."""
        asked: set[int] = set()
        for found in self.pending:
            taken = self.taken.get(found.record.name, set())
            left = [item for item in found.record.requests if item.row not in taken]
            own = [item for item in left if item.row in self.shard]
            asked.update(item.row for item in own)
            opened = SentBatch(found.record, own, is_whole=len(own) == len(left), has_results=found.has_results)
            opened.endpoint = found.endpoint
            if found.batch_id is not None:
                opened.status = BatchStatus(found.batch_id, "unknown", is_ended=False)
            if own or not left:
                self._open.append(opened)
            is_held_here = found.record.shard == self.journal.shard and not found.has_results
            if self.budget is not None and is_held_here:
                self.budget.adopt(found.record.held_usd)
                opened.held_usd = found.record.held_usd
        return (job for job in jobs if job.row not in asked and not self._is_held(job))

    def _is_held(self, job: Job) -> bool:
        """Whether the row has an answer that waits for its score alone; then it is taken out of the batches."""
        if job.state.waiting is None:
            return False
        self._alone.append(job)
        return True

    async def _send_all(self, fresh: Iterator[Job]) -> list[Job]:
        """Send what can be sent; returns the rows that are to be asked for one by one, once no batch is open."""
        if not self.policy.size:
            return [] if self._open else [*self._alone, *self._again]
        while len(self._open) < _MAX_OPEN and not self._is_out_of_money and not self._is_refused:
            new = list(islice(fresh, max(0, self.policy.size - len(self._again))))
            jobs, self._again = [*self._again, *new], []
            were_asked = all(self._was_asked(job) for job in jobs)
            if len(jobs) < self.policy.size and self._open and were_asked:
                self._again = jobs  # more may be refused: they go out together
                return []
            if len(jobs) <= self.policy.rest and were_asked:
                return [*self._alone, *jobs]
            await self._send(jobs)
        return []

    def _was_asked(self, job: Job) -> bool:
        return bool(job.state.num_rejected or job.state.prompt_variant or job.row in self._releases)

    async def _send(self, jobs: list[Job]) -> None:
        """Send a batch of the first rows that go to one model, as many as the budget allows; the others wait."""
        rows = [self.maker.next_prompt(job) for job in jobs]
        model = self.model_of(rows[0])
        chosen = [job for job, row in zip(jobs, rows, strict=True) if self.model_of(row) == model][: self.policy.size]
        held_usd = 0.0
        if self.budget is not None:
            try:
                num, held_usd = await self.budget.hold(len(chosen))
            except CreditError:
                if not self._open:
                    raise
                self._again, self._is_out_of_money = jobs, True  # until a batch has told what it cost
                return
            chosen = chosen[:num]
        numbers = {job.row for job in chosen}
        self._again = [job for job in jobs if job.row not in numbers]
        requests = [RowRequest.of(job) for job in chosen]
        record = await asyncio.to_thread(self.journal.put, model, requests, held_usd)
        if record is None:
            if self.budget is not None:
                self.budget.settle(held_usd, ())
            raise ProviderError(
                f"{self.journal.store.uri}: another process makes the same shard, and has recorded a batch: "
                "run the same command again later"
            )
        opened = SentBatch(record, requests, is_whole=True, held_usd=held_usd)
        self._open.append(opened)
        await self._submit(opened, is_again=False)

    async def _submit(self, opened: SentBatch, *, is_again: bool) -> None:
        record = opened.record
        requests = [
            (record.custom_id(item), self.write_fields(self._row_of(item), item.attempt, item.rejections))
            for item in record.requests
        ]
        draft = Draft(record.key, record.model, record.created_s, requests)
        opened.sent_s = time.time()
        try:
            opened.status = await self.api.submit(draft, is_again=is_again)
        except RefusedBatchError as exc:
            opened.status = BatchStatus("", REFUSED, is_ended=True, error=str(exc))
            self._is_refused = self.policy.size > 0
            return
        opened.endpoint = self.policy.endpoint
        await asyncio.to_thread(self.journal.put_sent, record, opened.status.id, opened.endpoint)

    async def _take_ended(self, runner: Runner) -> int:
        """Look at every open batch, and take the results of those that have ended; returns their number."""
        num_ended = 0
        for opened in list(self._open):
            if opened.needs_poll:
                await look_at(self.api, opened, self.policy.endpoint)
            if opened.is_ready:
                await self._take(opened, runner)
                self._open.remove(opened)
                self._is_out_of_money = False
                num_ended += 1
            runner.show(**self._shown())
        return num_ended

    async def _take(self, opened: SentBatch, runner: Runner) -> None:
        record, results = opened.record, await self._read_results(opened)
        wanted = {item.row: item for item in opened.own}
        pairs = [(wanted[result.row], result) for result in results if result.row in wanted]
        for at in range(0, len(pairs), _TAKEN_AT_ONCE):
            some = pairs[at : at + _TAKEN_AT_ONCE]
            await _run_all([self._take_row(request, result, record, runner) for request, result in some])
        await runner.flush()
        if opened.is_whole:
            await asyncio.to_thread(self.journal.put_done, record, results)
        self._check_failures([result for _, result in pairs])

    async def _read_results(self, opened: SentBatch) -> list[RowResult]:
        """A result for each request: those in the store, else those of the provider, which are in the store then."""
        record = opened.record
        if opened.has_results:
            return await asyncio.to_thread(self.journal.read_results, record)
        if not opened.own:
            return []
        assert opened.status is not None, "an ended batch has a status"
        found = [] if opened.status.state == REFUSED else await read_results(self.api, opened)
        settled = await asyncio.to_thread(settle, record, opened.status, found, self.prices_of(record.model))
        results = await asyncio.to_thread(self.journal.put_results, record, settled)
        self._settle(opened, results)
        return results

    async def _take_row(self, request: RowRequest, result: RowResult, record: BatchRecord, runner: Runner) -> None:
        job, answer = request.to_job(), to_answer(result, record.model)
        row = self._row_of(request)
        if not result.body:
            self.maker.release(row, answer, runner.add_reject, batch=record.name)
            self._releases[job.row] += 1
            (self._alone if self._releases[job.row] >= _MAX_RELEASES else self._again).append(job)
            return
        self.on_answer(record.model, answer.model)
        outcome = await self.maker.take(job, row, answer, runner.add_reject, batch=record.name)
        if isinstance(outcome, AskAgain):
            self._again.append(job)
        else:
            runner.end_row(job.row, outcome)

    def _settle(self, opened: SentBatch, results: list[RowResult]) -> None:
        if self.budget is not None:
            costs = [None if item.cost_pico is None else usd_of(item.cost_pico) for item in results]
            self.budget.settle(opened.held_usd, costs)
            opened.held_usd = 0.0

    def _check_failures(self, results: list[RowResult]) -> None:
        """End the run where batches bring nothing, lest they be sent for ever."""
        if not results or any(item.body for item in results):
            self._num_failed_in_a_row = 0
            return
        self._num_failed_in_a_row += 1
        because = results[0].error
        if self._is_refused:
            raise ConfigError(f"{because}: the endpoint takes no such batch: use --mode sync")
        if self._num_failed_in_a_row >= _MAX_FAILED_IN_A_ROW:
            raise ProviderError(f"{self._num_failed_in_a_row} batches in a row brought no answer: {because}")

    def _row_of(self, request: RowRequest) -> PlanRow:
        return self.maker.plan_row(request.row, request.prompt_variant)

    def _shown(self) -> dict[str, Any]:
        statuses = [item.status for item in self._open if item.status is not None]
        num_done = sum(status.num_completed + status.num_failed for status in statuses)
        num_total = sum(len(item.record.requests) for item in self._open)
        return {"batches": len(self._open), "answered": f"{num_done} of {num_total}"}


async def _run_all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all at once; where one fails the others are cancelled, and have ended when it returns."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
