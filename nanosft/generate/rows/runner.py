"""The event loop of one process: rows in flight, parts flushed as they come, and one orderly end.

Whatever ends a run early - a signal, no credit, a defect - ends it the same way: no new row, what has come is
flushed at once, answers in flight get `stop_grace_s`, and the rest is counted as never received.
"""

import asyncio
import gc
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from nanosft.conversation import Conversation, to_line
from nanosft.errors import Interrupted, NanosftError, ProviderError, StoreError
from nanosft.generate.provider import AdaptiveLimit
from nanosft.generate.records import KIND_KEY, Part, PartBuffer, PlanState
from nanosft.generate.rows.jobs import Job
from nanosft.generate.rows.row import OnReject, OpenSlot, ShuttingDown
from nanosft.progress import Bar
from nanosft.signals import calling
from nanosft.store import Store

_MAX_UNANSWERED_IN_A_ROW: Final = 20
_NUM_REASONS_SHOWN: Final = 3
_FLUSH_AGAIN_S: Final = 1.0


MakeRow = Callable[[Job, OpenSlot, OnReject], Awaitable[Conversation | None]]
"""Make one row, as `RowMaker.make` does."""
MakeSome = Callable[[Iterable[Job], "Runner"], Awaitable[Iterable[Job]]]
"""Make some of the rows, handing what comes of them to the runner; returns the rows that are left."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When parts are flushed, and what an early end may take, in seconds."""

    flush_rows: int
    flush_s: float
    stop_grace_s: float


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What one run made of a shard: rows accepted, and the seconds from its first request to its last flush."""

    num_rows: int = 0
    elapsed_s: float = 0.0


@dataclass
class Runner:
    """Makes rows until all are done or something ends the run.

    Attributes:
        make_row: Makes one row.
        store: Gets the parts.
        buffer: Holds what is not flushed yet.
        limit: Slots for requests in flight.
        timing: When to flush and how long to wait.
        bar: Shows the progress.
        state: What the parts say, counts and costs among it; kept up to date.
        num_made: Rows accepted by this run.
        on_signal: Called when a signal ends the run: what need not be waited for is given up.
    """

    make_row: MakeRow
    store: Store
    buffer: PartBuffer
    limit: AdaptiveLimit
    timing: Timing
    bar: Bar
    state: PlanState
    num_made: int = 0
    on_signal: Callable[[], None] = lambda: None
    _ended_by: BaseException | None = None
    _is_stopping: bool = False
    _num_unanswered_in_a_row: int = 0
    _unanswered: list[Job] = field(default_factory=list)
    _unanswered_because: str = ""
    _rejects: Counter[str] = field(default_factory=Counter)  # by reason, of this run
    _pending: deque[Part] = field(default_factory=deque)  # taken from the buffer and not put yet
    _flush_failed: Exception | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._started_s = time.monotonic()
        self._stopped = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._flush_now = asyncio.Event()
        # Rows in flight, and as many whose answers wait to be checked.
        self._row_slots = asyncio.Semaphore(2 * self.limit.ceiling)

    async def run(self, jobs: Iterable[Job], first: MakeSome | None = None) -> ShardResult:
        """Make all rows; every part is flushed when it returns or raises.

        Args:
            jobs: The rows.
            first: Makes some of them in another way, and returns those that it leaves.

        Raises:
            Interrupted: After SIGTERM or SIGINT, with everything saved.
            ProviderError: Some rows got no answer.
            NanosftError: The provider, the budget or the store fails.
        """
        self._started_s = time.monotonic()
        with _infrequent_gc(), calling(asyncio.get_running_loop(), self._stop_by_signal):
            flusher = asyncio.create_task(self._flush_regularly())
            try:
                await self._until_stopped(self._make_all(jobs, first))
            finally:
                self._is_stopping = True
                async with self._flushing:  # not in the midst of a part: nobody would learn what became of it
                    flusher.cancel()
                await asyncio.gather(flusher, return_exceptions=True)
                await self._drain()
        if self._flush_failed is not None:  # whatever else ended the run: not all is saved
            raise self._flush_failed from self._ended_by
        if self._ended_by is not None:
            raise self._ended_by
        if self._unanswered:
            raise ProviderError(
                f"{len(self._unanswered)} rows got no answer ({self._unanswered_because}): run the same command again"
            )
        return ShardResult(self.num_made, time.monotonic() - self._started_s)

    def stop(self, cause: BaseException) -> None:
        """End the run; the first cause is the one raised."""
        self._ended_by = self._ended_by or cause
        self._is_stopping = True
        self._stopped.set()

    def _stop_by_signal(self, signum: int) -> None:
        if self._ended_by is not None:  # asked twice: do not wait for answers
            for task in self._tasks:
                task.cancel()
        self.stop(Interrupted(signum))
        self.on_signal()

    async def _make_all(self, jobs: Iterable[Job], first: MakeSome | None) -> None:
        await self.make_each(await first(jobs, self) if first is not None else jobs)
        again, self._unanswered = self._unanswered, []
        await self.make_each(again)  # once more for rows that a passing failure left out

    async def make_each(self, jobs: Iterable[Job]) -> None:
        """Ask for rows one by one, as many at a time as there are slots."""
        for job in jobs:
            await self._row_slots.acquire()
            task = asyncio.create_task(self._make(job))
            self._tasks.add(task)
            task.add_done_callback(self._release)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _release(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._row_slots.release()

    async def _make(self, job: Job) -> None:
        try:
            conversation = await self.make_row(job, self._open_slot, self.add_reject)
        except ShuttingDown:
            return
        except ProviderError as exc:
            self._leave_out(job, str(exc))
            return
        except Exception as exc:  # noqa: BLE001 - whatever it is, it ends the run, flushed; `run` raises it
            self.stop(exc)
            return
        self._num_unanswered_in_a_row = 0
        self.end_row(job.row, conversation)

    def end_row(self, row: int, conversation: Conversation | None) -> None:
        """Keep the row's conversation; None: the row is given up."""
        if conversation is None:
            self.state.given_up[row] = 1
        else:
            self._add_row(row, conversation)
        self.bar.advance(**self._shown())

    @asynccontextmanager
    async def _open_slot(self) -> AsyncIterator[None]:
        """A slot for one request, unless the run is stopping."""
        await self.limit.acquire()
        try:
            if self._is_stopping:
                raise ShuttingDown
            yield
        finally:
            self.limit.release()

    def show(self, **fields: Any) -> None:
        """Show more beside the progress."""
        self.bar.advance(0, **fields)

    def _add_row(self, row: int, conversation: Conversation) -> None:
        self.buffer.add_row(to_line(conversation))
        self.state.tally.add_row(conversation.meta)
        self.state.accepted[row] = 1
        self.num_made += 1
        if self.buffer.num_rows >= self.timing.flush_rows:
            self._flush_now.set()

    def add_reject(self, record: Mapping[str, Any]) -> None:
        """Keep the record of an answer that was rejected or never came."""
        self.buffer.add_reject(record)
        self.state.tally.add_reject(record)
        if KIND_KEY not in record:  # neither a judge's answer nor one that is held
            self._rejects[record["reason"]] += 1

    def _leave_out(self, job: Job, because: str) -> None:
        self._unanswered.append(job)
        self._unanswered_because = because
        self._num_unanswered_in_a_row += 1
        if self._num_unanswered_in_a_row >= _MAX_UNANSWERED_IN_A_ROW:
            self.stop(ProviderError(f"{self._num_unanswered_in_a_row} rows in a row got no answer: {because}"))

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` until it ends or the run is stopped."""
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not task.done():
                task.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self.stop(exc)

    async def _drain(self) -> None:
        """Flush, wait for answers in flight, give up on the rest, flush again."""
        if self._tasks:
            await self._flush()
        if self._tasks:  # some may have ended meanwhile
            await asyncio.wait(self._tasks, timeout=self.timing.stop_grace_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._flush_last()

    async def _flush_last(self) -> None:
        """Flush, again and again within the grace where the store fails, and at last into a folder of this machine."""
        end_s = time.monotonic() + self.timing.stop_grace_s
        await self._flush()
        while isinstance(self._flush_failed, StoreError) and (left_s := end_s - time.monotonic()) > 0:
            await asyncio.sleep(min(_FLUSH_AGAIN_S, left_s))
            await self._flush()
        if isinstance(self._flush_failed, NanosftError):
            with suppress(OSError, NanosftError):  # the store's own error matters more
                place = self.buffer.put_locally(self._pending)
                self._flush_failed = type(self._flush_failed)(
                    f"{self._flush_failed}; what is not saved lies in {place}"
                )

    async def flush(self) -> None:
        """Put all lines that wait; they are in the store when it returns.

        Raises:
            NanosftError: The store fails.
        """
        await self._flush()
        if self._flush_failed is not None:
            raise self._flush_failed

    async def _flush_regularly(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self.timing.flush_s):
                    await self._flush_now.wait()
            except TimeoutError:
                pass
            self._flush_now.clear()
            await self._flush()

    async def _flush(self) -> None:
        """Put what waits as one part. Pending parts that could not be put are tried once more by the next flush."""
        async with self._flushing:
            if (taken := self.buffer.take()) is not None:
                self._pending.append(taken)
            while self._pending:
                try:
                    item = await asyncio.to_thread(self.buffer.put, self.store, self._pending[0])
                except Exception as exc:  # noqa: BLE001 - whatever it is, it ends the run; `run` raises it
                    self._flush_failed = exc
                    self.stop(exc)
                    return
                self._flush_failed = None
                self._pending.popleft()
                if item is not None:
                    self.state.objects[item.key] = item
                self.bar.log()

    def _shown(self) -> dict[str, Any]:
        reasons = self._rejects.most_common(_NUM_REASONS_SHOWN)
        return {
            "per_s": round(self.num_made / max(time.monotonic() - self._started_s, 1e-9), 2),
            "cost_usd": self.state.tally.cost_usd,
            "in_flight": self.limit.num_in_flight,
            "rejected": ", ".join(f"{reason} {count}" for reason, count in reasons) or "none",
        }


@contextmanager
def _infrequent_gc() -> Iterator[None]:
    """Collect cyclic garbage a hundred times less often: with hundreds of rows in flight it took 10 % of the CPU."""
    thresholds = gc.get_threshold()
    gc.set_threshold(thresholds[0] * 100, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
