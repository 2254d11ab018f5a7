"""The event loop of one process: rows in flight, parts flushed as they come, and one orderly end.

Whatever ends a run early - a signal, no credit, a defect - ends it the same way: no new row, what has come is
flushed at once, answers in flight get `stop_grace_s`, and the rest is counted as never received.
"""

import asyncio
import gc
import time
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from nanosft.errors import Interrupted, ProviderError
from nanosft.generate.records.parts import Part, PartBuffer, PlanState, RowState
from nanosft.generate.rows.row import RowMaker, StoppedError
from nanosft.progress import Bar
from nanosft.signals import calling
from nanosft.store import Store

_MAX_UNSERVED_IN_A_ROW: Final = 20
_NUM_REASONS_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Job:
    """One row to be made: its number, what earlier answers left, and the last prompt to try."""

    row: int
    state: RowState
    last_fresh: int


@dataclass(frozen=True, slots=True)
class Timing:
    """When parts are flushed, and what an early end may take, in seconds."""

    flush_rows: int
    flush_s: float
    stop_grace_s: float


@dataclass(frozen=True, slots=True)
class Made:
    """What a run made: rows accepted, and the seconds from its first request to its last flush."""

    num_rows: int = 0
    elapsed_s: float = 0.0


@dataclass
class Runner:
    """Makes rows until all are done or something ends the run.

    Attributes:
        maker: Makes one row.
        store: Gets the parts.
        timing: When to flush and how long to wait.
        bar: Shows the progress.
        state: What the parts say; kept up to date.
        num_made: Rows accepted by this run.
    """

    maker: RowMaker
    store: Store
    timing: Timing
    bar: Bar
    state: PlanState
    num_made: int = 0
    _ended_by: BaseException | None = None
    _num_unserved_in_a_row: int = 0
    _unserved: list[Job] = field(default_factory=list)
    _unserved_because: str = ""
    _unput: deque[Part] = field(default_factory=deque)
    _flush_failed: Exception | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._started_s = time.monotonic()
        self._stopped = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._flush_now = asyncio.Event()
        # Rows in flight, and as many whose answers wait to be judged.
        self._places = asyncio.Semaphore(2 * self.maker.limit.ceiling)

    @property
    def _buffer(self) -> PartBuffer:
        return self.maker.buffer

    async def run(self, jobs: Iterable[Job]) -> Made:
        """Make all rows; every part is flushed when it returns or raises.

        Raises:
            Interrupted: After SIGTERM or SIGINT, with everything saved.
            ProviderError: Some rows got no answer.
            NanosftError: Of the provider, the budget or the store.
        """
        self._started_s = time.monotonic()
        with _rare_collections(), calling(self._stop_by_signal):
            flusher = asyncio.create_task(self._flush_regularly())
            try:
                await self._until_stopped(self._make_all(jobs))
            finally:
                self.maker.is_stopping = True
                async with self._flushing:  # not in the midst of a part: nobody would learn what became of it
                    flusher.cancel()
                await asyncio.gather(flusher, return_exceptions=True)
                await self._drain()
        if self._flush_failed is not None:  # whatever else ended the run: not all is saved
            raise self._flush_failed from self._ended_by
        if self._ended_by is not None:
            raise self._ended_by
        if self._unserved:
            raise ProviderError(
                f"{len(self._unserved)} rows got no answer ({self._unserved_because}): run the same command again"
            )
        return Made(self.num_made, time.monotonic() - self._started_s)

    def stop(self, cause: BaseException) -> None:
        """End the run; the first cause is the one raised."""
        self._ended_by = self._ended_by or cause
        self.maker.is_stopping = True
        self._stopped.set()

    def _stop_by_signal(self, signum: int) -> None:
        if self._ended_by is not None:  # asked twice: do not wait for answers
            for task in self._tasks:
                task.cancel()
        self.stop(Interrupted(signum))

    async def _make_all(self, jobs: Iterable[Job]) -> None:
        await self._make_each(jobs)
        again, self._unserved = self._unserved, []
        await self._make_each(again)  # once more for rows that a passing failure left out

    async def _make_each(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            await self._places.acquire()
            task = asyncio.create_task(self._make(job))
            self._tasks.add(task)
            task.add_done_callback(self._release)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _release(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._places.release()

    async def _make(self, job: Job) -> None:
        try:
            accepted = await self.maker.make(job.row, job.state, job.last_fresh)
        except StoppedError:
            return
        except (ProviderError, TimeoutError) as exc:
            self._leave_out(job, str(exc) or f"row {job.row} took longer than {self.maker.row_timeout_s:g} s")
            return
        except Exception as exc:  # noqa: BLE001 - whatever it is, it ends the run, flushed; `run` raises it
            self.stop(exc)
            return
        self._num_unserved_in_a_row = 0
        self.num_made += accepted
        (self.state.accepted if accepted else self.state.given_up)[job.row] = 1
        self.bar.advance(**self._shown())
        if self._buffer.num_rows >= self.timing.flush_rows:
            self._flush_now.set()

    def _leave_out(self, job: Job, because: str) -> None:
        self._unserved.append(job)
        self._unserved_because = because
        self._num_unserved_in_a_row += 1
        if self._num_unserved_in_a_row >= _MAX_UNSERVED_IN_A_ROW:
            self.stop(ProviderError(f"{self._num_unserved_in_a_row} rows in a row got no answer: {because}"))

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
        await self._flush()

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
        """Put what waits as one part. Parts that could not be put are tried once more by the next flush."""
        async with self._flushing:
            if (taken := self._buffer.take()) is not None:
                self._unput.append(taken)
            while self._unput:
                try:
                    item = await asyncio.to_thread(self._buffer.put, self.store, self._unput[0])
                except Exception as exc:  # noqa: BLE001 - whatever it is, it ends the run; `run` raises it
                    self._flush_failed = exc
                    self.stop(exc)
                    return
                self._flush_failed = None
                self._unput.popleft()
                if item is not None:
                    self.state.objects[item.key] = item
                self.bar.log()

    def _shown(self) -> dict[str, Any]:
        reasons = self.maker.refusals.most_common(_NUM_REASONS_SHOWN)
        return {
            "per_s": round(self.num_made / max(time.monotonic() - self._started_s, 1e-9), 2),
            "cost_usd": self.maker.tally.cost_usd,
            "in_flight": self.maker.limit.num_in_flight,
            "refused": ", ".join(f"{reason} {count}" for reason, count in reasons) or "none",
        }


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Collect cyclic garbage a hundred times less often: with hundreds of rows in flight it took 10 % of the CPU."""
    thresholds = gc.get_threshold()
    gc.set_threshold(thresholds[0] * 100, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
