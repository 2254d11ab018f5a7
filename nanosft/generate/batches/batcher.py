"""The rows of a shard in batches: recorded, sent, waited for, taken, and what was refused sent once more.

    batcher = Batcher(…)
    rest = await batcher.run(jobs, runner)    # as a `MakeSome`: the rows that it leaves are asked for one by one

An answer that the gates accept and a judge is to score is held in the store; batches of such answers go to the judge,
and a score that is too low sends its row back to the writer, with the reason.

What may be lost is in the store before anything depends on it: the record before the batch is sent, the results before
they are judged, a row's line before the batch counts as done. So a process that is killed anywhere leaves what the next
one needs to go on, and no row is in two batches at once.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Any, Final

from nanosft.errors import BatchesPendingError, CreditError, ProviderError
from nanosft.generate.batches.api import BatchApi, BatchStatus, Draft, RefusedBatchError
from nanosft.generate.batches.journal import Journal, OpenBatch
from nanosft.generate.batches.look import look_at
from nanosft.generate.batches.policy import BatchPolicy
from nanosft.generate.batches.queue import Queue, Queues, Requests
from nanosft.generate.batches.record import BatchKind, RowRequest
from nanosft.generate.batches.sent import REFUSED, SentBatch
from nanosft.generate.batches.taker import Taker
from nanosft.generate.planning import PlanRow
from nanosft.generate.rows import Budget, Job, Owed, RowMaker, Runner

_MAX_OPEN: Final = 64
"""Batches of one process that are with the provider at once: their results are read one after the other."""


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
        writing: Requests of conversations.
        scoring: Requests of scores; None: there is no judge, or it is asked one by one.
        budget: None: no limit.
        policy: How batches are made.
    """

    api: BatchApi
    journal: Journal
    pending: Sequence[OpenBatch]
    taken: Mapping[str, set[int]]
    shard: range
    maker: RowMaker
    writing: Requests
    scoring: Requests | None
    budget: Budget | None
    policy: BatchPolicy
    _open: list[SentBatch] = field(default_factory=list)
    _found: list[Job] = field(default_factory=list)  # whose answers earlier processes hold, and no batch
    _out_of_money: CreditError | None = None  # until a batch has told what it cost

    def __post_init__(self) -> None:
        to_score = None if self.scoring is None else Queue(self.scoring)
        self._queues = Queues(Queue(self.writing), to_score, sends=self.policy.size > 0)
        self._taker = Taker(self.api, self.journal, self.maker, self._queues, self.budget)

    async def run(self, jobs: Iterable[Job], runner: Runner) -> Iterable[Job]:
        """Make rows in batches; returns those that are to be asked for one by one.

        Raises:
            BatchesPendingError: Batches are with the provider, and nobody waits for them.
            CreditError: No credit, or the budget allows no more.
            ConfigError: The provider takes no batch of rows, or a batch that it does not find was sent elsewhere.
            ProviderError: It fails, or batch after batch does.
        """
        fresh = self._adopt(jobs)
        if not self.policy.size:
            await runner.make_each(fresh)
        for opened in [item for item in self._open if item.needs_submit]:
            await self._submit(opened, is_again=True)
        while True:
            await self._send_all(fresh, runner)
            if not self._open and self._out_of_money is not None:
                await runner.make_each(self._queues.held)  # for their scores there is money
                raise self._out_of_money
            if not self._open:
                return self._queues.rest
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
            opened.num_due = self._count_due(opened)
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
        """Whether the row has an answer that waits for its score alone; then no batch is to write it."""
        if job.state.waiting is None or not self.policy.size:
            return False
        (self._found if self._queues.has_scores_sent else self._queues.alone).append(job)
        return True

    async def _send_all(self, fresh: Iterator[Job], runner: Runner) -> None:
        """Send what can be sent; the others wait for more, or are a rest."""
        while self.policy.size and len(self._open) < _MAX_OPEN and self._out_of_money is None:
            await self._fill(fresh, runner)
            is_any_open = bool(self._open)
            ready = [queue for queue in self._queues.all if queue.is_ready(self.policy, is_any_open=is_any_open)]
            if not ready:
                return
            await self._send(ready[0])

    async def _fill(self, fresh: Iterator[Job], runner: Runner) -> None:
        """Take up new rows, as many as the next batch lacks; the answers held that are met go to the judge again."""
        to_write = self._queues.to_write
        to_write.jobs += islice(fresh, max(0, self.policy.size - len(to_write.jobs)))
        found, self._found = self._found, []
        await self._taker.hold_again(found, runner)
        if found:
            await runner.flush()  # what the gates refused anew, before a batch asks for it again

    async def _send(self, queue: Queue) -> None:
        """Send a batch of the first rows that go to one model, as many as the budget allows; the others wait."""
        requests = queue.requests
        models = [requests.model_of(self.maker.next_prompt(job)) for job in queue.jobs]
        chosen = [job for job, model in zip(queue.jobs, models, strict=True) if model == models[0]]
        num, held_usd = min(len(chosen), self.policy.size), 0.0
        if self.budget is not None:
            try:
                num, held_usd = await self.budget.hold(num, requests.account, self._owed(chosen[:num], requests.kind))
            except CreditError as exc:
                self._out_of_money = exc
                return
        asked = [RowRequest.of(job) for job in chosen[:num]]
        numbers = {item.row for item in asked}
        queue.jobs = [job for job in queue.jobs if job.row not in numbers]
        record = await asyncio.to_thread(self.journal.put, requests.kind, models[0], asked, held_usd)
        if record is None:
            if self.budget is not None:
                self.budget.settle(held_usd, (), requests.account)
            raise ProviderError(
                f"{self.journal.store.uri}: another process makes the same shard, and has recorded a batch: "
                "run the same command again later"
            )
        opened = SentBatch(record, asked, is_whole=True, held_usd=held_usd)
        opened.num_due = self._count_due(opened)
        self._open.append(opened)
        await self._submit(opened, is_again=False)

    def _owed(self, jobs: Sequence[Job], kind: BatchKind) -> Owed | None:
        """Scores that follow from what was written, and from a batch of more rows."""
        if self.scoring is None or kind == "scores":
            return None
        num_due = len(self._queues.held) + sum(opened.num_due for opened in self._open)
        due = (int(self.maker.is_due(job.row)) for job in jobs)
        return Owed(self.scoring.account, list(accumulate(due, initial=num_due)))

    def _count_due(self, opened: SentBatch) -> int:
        """Rows of a batch that are to be scored once it has ended; of a batch of scores none is."""
        is_of_rows = opened.record.kind == "rows"
        return sum(self.maker.is_due(item.row) for item in opened.own) if is_of_rows else 0

    async def _submit(self, opened: SentBatch, *, is_again: bool) -> None:
        record, queue = opened.record, self._queues.of(opened.record.kind)
        requests = [
            (record.custom_id(item), queue.requests.write_fields(self._row_of(item), item)) for item in record.requests
        ]
        draft = Draft(record.key, record.model, record.created_s, requests)
        opened.sent_s = time.time()
        try:
            opened.status = await self.api.submit(draft, is_again=is_again)
        except RefusedBatchError as exc:
            opened.status = BatchStatus("", REFUSED, is_ended=True, error=str(exc))
            queue.is_refused = self._queues.sends
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
                await self._taker.take(opened, runner)
                self._open.remove(opened)
                self._out_of_money = None
                num_ended += 1
            runner.show(**self._shown())
        return num_ended

    def _row_of(self, request: RowRequest) -> PlanRow:
        return self.maker.plan_row(request.row, request.prompt_variant)

    def _shown(self) -> dict[str, Any]:
        statuses = [item.status for item in self._open if item.status is not None]
        num_done = sum(status.num_completed + status.num_failed for status in statuses)
        num_total = sum(len(item.record.requests) for item in self._open)
        return {"batches": len(self._open), "answered": f"{num_done} of {num_total}"}
