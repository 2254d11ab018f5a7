"""Processes that work on tasks in parallel and give their results back in the order of the tasks."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from nanosft.errors import StoreError

ResultT = TypeVar("ResultT")

_TASKS_AHEAD: Final = 2
"""Per process: one it works on, one that waits. More would only hold memory."""


class Workers:
    """A fixed number of processes; with one, the calling process does the work itself.

    Args:
        num: How many.
        setup: Called once in each process before its first task, with `arguments`.
        arguments: Picklable.
    """

    def __init__(self, num: int, setup: Callable[..., None], *arguments: Any) -> None:
        self.num = num
        self._pool: ProcessPoolExecutor | None = None
        if num == 1:
            setup(*arguments)
            return
        # Neither fork (threads and connections of this process would be copied) nor spawn (imports once per process).
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["__main__", setup.__module__])
        self._pool = ProcessPoolExecutor(num, mp_context=context, initializer=_start, initargs=(setup, *arguments))

    def map(self, function: Callable[..., ResultT], tasks: Iterable[tuple[Any, ...]]) -> Iterator[ResultT]:
        """`function(*task)` for each task, in order; tasks are drawn as results are taken.

        Raises:
            StoreError: A worker process died, most likely of too little memory.
        """
        if self._pool is None:
            yield from (function(*task) for task in tasks)
            return
        waiting: deque[Future[ResultT]] = deque()
        try:
            for task in tasks:
                waiting.append(self._pool.submit(function, *task))
                if len(waiting) > _TASKS_AHEAD * self.num:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as exc:
            raise StoreError(
                "a worker process was killed, most likely for memory: set --workers 1 or allow more"
            ) from exc
        finally:
            for future in waiting:
                future.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _start(setup: Callable[..., None], *arguments: Any) -> None:
    """Begin a worker: signals are the first process's business, and without it there is no work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    setup(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def count_cpus() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0))
