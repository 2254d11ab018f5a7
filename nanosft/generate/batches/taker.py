"""Takes the results of batches that have ended: into the store, to the gates or the judge's measure, into parts."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from nanosft.conversation import Conversation
from nanosft.errors import ConfigError, ProviderError
from nanosft.generate.batches.api import BatchApi
from nanosft.generate.batches.journal import Journal
from nanosft.generate.batches.look import read_results
from nanosft.generate.batches.queue import Queues
from nanosft.generate.batches.record import BatchRecord, RowRequest, RowResult
from nanosft.generate.batches.sent import REFUSED, SentBatch
from nanosft.generate.batches.settle import settle, to_answer
from nanosft.generate.records import usd_of
from nanosft.generate.rows import AskAgain, AwaitsScore, Budget, Job, RowMaker, Runner, held_answer

_MAX_FAILED_IN_A_ROW: Final = 3
_AT_ONCE: Final = 64
_log: Final = logging.getLogger(__name__)
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Taker:
    """Takes results.

    Attributes:
        api: The provider.
        journal: What is in the store of batches.
        maker: Puts answers through the gates.
        queues: Get the rows that are to be asked for once more.
        budget: None: no limit.
    """

    api: BatchApi
    journal: Journal
    maker: RowMaker
    queues: Queues
    budget: Budget | None

    async def take(self, opened: SentBatch, runner: Runner) -> None:
        """Take a batch that is ready; its lines are in parts when it returns.

        Raises:
            ConfigError: The provider takes no batch of rows.
            ProviderError: Batch after batch brings nothing, or its results cannot be read.
        """
        record, results = opened.record, await self._read_results(opened)
        wanted = {item.row: item for item in opened.own}
        pairs = [(wanted[result.row], result) for result in results if result.row in wanted]

        async def take_row(pair: tuple[RowRequest, RowResult]) -> None:
            await self._take_row(*pair, record, runner)

        await _run_all(take_row, pairs)
        await runner.flush()
        if opened.is_whole:
            await asyncio.to_thread(self.journal.put_done, record, results)
        self._check_failures(record, [result for _, result in pairs])

    async def hold_again(self, jobs: Sequence[Job], runner: Runner) -> None:
        """Put answers that earlier processes have held through the gates anew, to have them scored."""

        async def hold(job: Job) -> None:
            assert job.state.waiting is not None, "its answer is held"
            row, answer = self.maker.next_prompt(job), held_answer(job.state.waiting)
            self._end(job, await self.maker.hold(job, row, answer, runner.add_reject), runner)

        await _run_all(hold, jobs)

    async def _read_results(self, opened: SentBatch) -> list[RowResult]:
        """A result for each request: those in the store, else those of the provider, which are in the store then."""
        record = opened.record
        if opened.has_results:
            return await asyncio.to_thread(self.journal.read_results, record)
        if not opened.own:
            return []
        assert opened.status is not None, "an ended batch has a status"
        found = [] if opened.status.state == REFUSED else await read_results(self.api, opened)
        prices = self.queues.of(record.kind).requests.prices_of(record.model)
        settled = await asyncio.to_thread(settle, record, opened.status, found, prices)
        results = await asyncio.to_thread(self.journal.put_results, record, settled)
        self._settle(opened, results)
        return results

    async def _take_row(self, request: RowRequest, result: RowResult, record: BatchRecord, runner: Runner) -> None:
        job, answer = request.to_job(), to_answer(result, record.model)
        maker, is_score = self.maker, record.kind == "scores"
        row = maker.plan_row(request.row, request.prompt_variant)
        if not result.body:
            (maker.release_score if is_score else maker.release)(row, answer, runner.add_reject, batch=record.name)
            self.queues.release(job, record.kind)
            return
        self.queues.of(record.kind).requests.on_answer(record.model, answer.model)
        put = maker.settle if is_score else maker.hold if self.queues.has_scores_sent else maker.take
        self._end(job, await put(job, row, answer, runner.add_reject, batch=record.name), runner)

    def _end(self, job: Job, outcome: Conversation | AskAgain | AwaitsScore | None, runner: Runner) -> None:
        if isinstance(outcome, AskAgain | AwaitsScore):
            self.queues.sort(job, outcome)
        else:
            runner.end_row(job.row, outcome)

    def _settle(self, opened: SentBatch, results: list[RowResult]) -> None:
        if self.budget is not None:
            costs = [None if item.cost_pico is None else usd_of(item.cost_pico) for item in results]
            self.budget.settle(opened.held_usd, costs, self.queues.of(opened.record.kind).requests.account)
            opened.held_usd = 0.0

    def _check_failures(self, record: BatchRecord, results: list[RowResult]) -> None:
        """End the run where batches bring nothing, lest they be sent for ever; of a judge's refused ones it is told."""
        queue = self.queues.of(record.kind)
        if not results or any(item.body for item in results):
            queue.num_failed_in_a_row = 0
            return
        queue.num_failed_in_a_row += 1
        because = results[0].error
        if queue.is_refused and record.kind == "scores":
            _log.warning("%s: the endpoint takes no batch for the judge: scores are asked for one by one", because)
            return
        if queue.is_refused:
            raise ConfigError(f"{because}: the endpoint takes no such batch: use --mode sync")
        if queue.num_failed_in_a_row >= _MAX_FAILED_IN_A_ROW:
            raise ProviderError(f"{queue.num_failed_in_a_row} batches in a row brought no answer: {because}")


async def _run_all(do: Callable[[_Item], Coroutine[Any, Any, None]], items: Sequence[_Item]) -> None:
    """Do all, some at once; where one fails the others are cancelled, and have ended when it returns."""
    for at in range(0, len(items), _AT_ONCE):
        tasks = [asyncio.create_task(do(item)) for item in items[at : at + _AT_ONCE]]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
