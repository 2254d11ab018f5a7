"""Processes that work on tasks in parallel and give their results back in the order of the tasks."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from nanosft.errors import StoreError
from nanosft.memory import keep_freed_memory

ResultT = TypeVar("ResultT")

_KEPT_BYTES: Final = 32 << 20
_TASKS_AHEAD: Final = 2
"""Per process: one it works on, one that waits. More would only hold memory."""
_WORKER_DIED: Final = "a worker process was killed, most likely for memory: let fewer share the work, or allow more"


class Workers:
    """A fixed number of processes, each known by its number; with one, the calling process does the work itself.

    Each is a pool of its own, so that a process can keep files and buffers from task to task and be told to give them
    up (`each`): a shared pool cannot address one of its processes.

    Args:
        num: How many.
        setup: Called once in each process before its first task, with the process's number and `arguments`.
        arguments: Picklable.
    """

    def __init__(self, num: int, setup: Callable[..., None], *arguments: Any) -> None:
        self.num = num
        self._pools: list[ProcessPoolExecutor] = []
        self._setups: list[Future[None]] = []
        if num == 1:
            setup(0, *arguments)
            return
        prepare(num, setup.__module__)
        context = multiprocessing.get_context("forkserver")
        self._pools = [ProcessPoolExecutor(1, mp_context=context, initializer=_start) for _ in range(num)]
        # A task as others, not the initializer: its errors come back as they are.
        self._setups = [pool.submit(setup, number, *arguments) for number, pool in enumerate(self._pools)]

    @property
    def num_ahead(self) -> int:
        """Tasks that `map` has drawn and not given back when it draws another, at the most."""
        return _TASKS_AHEAD * self.num if self._pools else 0

    def map(self, function: Callable[..., ResultT], tasks: Iterable[tuple[Any, ...]]) -> Iterator[ResultT]:
        """`function(*task)` for each task, in order; tasks are drawn as results are taken.

        Raises:
            StoreError: A worker process died, most likely of too little memory.
        """
        if not self._pools:
            yield from (function(*task) for task in tasks)
            return
        waiting: deque[tuple[int, Future[ResultT]]] = deque()
        try:
            for task in tasks:
                number = self._least_busy(waiting)
                waiting.append((number, _submit(self._pools[number], function, *task)))
                if len(waiting) > self.num_ahead:
                    yield self._result(waiting.popleft()[1])
            while waiting:
                yield self._result(waiting.popleft()[1])
        finally:
            for _, future in waiting:
                future.cancel()

    def each(self, function: Callable[[], ResultT]) -> list[ResultT]:
        """`function()` in each process, after the tasks it has; the results by its number.

        Raises:
            StoreError: A worker process died.
        """
        if not self._pools:
            return [function()]
        return [self._result(future) for future in [_submit(pool, function) for pool in self._pools]]

    def _result(self, future: "Future[ResultT]") -> ResultT:
        try:
            return future.result()
        except BrokenProcessPool as exc:
            raise StoreError(_WORKER_DIED) from exc
        except Exception:
            for setup in self._setups:
                setup.result()  # without its set-up a process fails at every task, for that one reason
            raise

    def _least_busy(self, waiting: Iterable[tuple[int, Future[Any]]]) -> int:
        num_left = [0] * self.num
        for number, future in waiting:
            num_left[number] += not future.done()
        return num_left.index(min(num_left))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools:
            pool.shutdown(wait=True)


def _submit(pool: ProcessPoolExecutor, function: Callable[..., ResultT], *task: Any) -> "Future[ResultT]":
    """Hand a task over; a process that died between two tasks is met here, not at a result."""
    try:
        return pool.submit(function, *task)
    except BrokenProcessPool as exc:
        raise StoreError(_WORKER_DIED) from exc


def prepare(num: int, module: str) -> None:
    """Start the process that workers are forked from, and have it import a module; returns at once.

    Where there will be one worker, this process, it does nothing. Called early, its imports go on beside those of this
    process. Neither fork would do (threads and connections of this process would be copied) nor spawn (each process
    would import anew).
    """
    if num == 1:
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload([module])
    forkserver.ensure_running()


def _start() -> None:
    """Begin a worker: signals are the first process's business, and without it there is no work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory(_KEPT_BYTES)  # every batch needs as much again


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def count_cpus() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0))
