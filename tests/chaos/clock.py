"""Time and threads of simulated processes: no one waits, and what waits for nothing but time makes it pass.

An event loop that has nothing to do moves the clock to its next timer. What it gives to a thread is done in the loop,
a little later, after or before what else is ready then: it is the same at each run, so that a call's number is as well.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, tzinfo
from selectors import DefaultSelector
from typing import Any, Final, Self, TypeVar, TypeVarTuple, Unpack

import pytest

from nanosft.data import attempts
from nanosft.generate.rows import known
from tests.chaos.faults import current

ArgsT = TypeVarTuple("ArgsT")
ResultT = TypeVar("ResultT")
_TICK_S: Final = 1e-6
"""How long it takes to look at the clock."""
_THREADS_S: Final = (0.0, 0.0, 0.001, 0.002)
"""After how long, of which one is drawn, something that is given to a thread is done."""


@dataclass
class Clock:
    """Seconds since the simulation began, which pass where somebody waits."""

    now_s: float = 0.0

    def tell(self) -> float:
        """Seconds, a little more each time."""
        self.now_s += _TICK_S
        return self.now_s

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now_s += max(0.0, seconds)


class _Selector(DefaultSelector):
    """Of a loop that nobody outside wakes: where nothing is ready its next timer is due at once."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        """What is ready now."""
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("a simulated process waits for what will never be")
        if not ready and timeout is not None:
            self._clock.wait(timeout)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    """A loop without threads."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(_Selector(clock))
        self._draw = random.Random(0)

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[ArgsT]], ResultT], *args: *ArgsT
    ) -> asyncio.Future[ResultT]:
        """See `asyncio`: the function is called by the loop."""
        assert executor is None, "it would have threads"
        return asyncio.wrap_future(self.do_later(func, *args), loop=self)

    def do_later(self, func: Callable[[Unpack[ArgsT]], ResultT], *args: *ArgsT) -> Future[ResultT]:
        """Call a function a little later."""
        future: Future[ResultT] = Future()

        def do() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = func(*args)
            except BaseException as exc:  # noqa: BLE001 - as a thread of a pool hands on whatever there was
                future.set_exception(exc)
            else:
                future.set_result(result)

        self.call_later(self._draw.choice(_THREADS_S), do)
        return future


class _Thread:
    """In place of a pool of one thread beside a loop."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._given: list[Future[Any]] = []

    def __enter__(self) -> Self:
        return self

    def submit(self, func: Callable[..., Any], *args: Any) -> Future[Any]:
        """See `concurrent.futures`."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _Loop)
        self._given.append(loop.do_later(func, *args))
        return self._given[-1]

    def __exit__(self, *_: object) -> None:
        for future in self._given:
            future.cancel()


@contextmanager
def simulated_time() -> Iterator[Clock]:
    """Nobody sleeps, in boto's retries neither, and all loops are of one thread; clocks may jump as well."""
    clock, began_s = Clock(), time.time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", clock.wait)
        patch.setattr(time, "monotonic", clock.tell)
        patch.setattr(time, "time", lambda: began_s + clock.tell() + current().clock_s)
        patch.setattr(asyncio.events, "new_event_loop", lambda: _Loop(clock))
        patch.setattr(known, "ThreadPoolExecutor", _Thread)
        patch.setattr(attempts, "datetime", _Datetime)
        yield clock


@contextmanager
def jumping_time() -> Iterator[None]:
    """The machine's time, which jumps where the running process's clock does."""
    tell = time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: tell() + current().clock_s)
        patch.setattr(attempts, "datetime", _Datetime)
        yield


class _Datetime(datetime):
    """The time as the running process's clock tells it."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "_Datetime":
        """See `datetime.now`."""
        return cls.fromtimestamp(time.time(), tz)
