"""SIGTERM and SIGINT, caught in one way by every stage; outside the main thread, where Python cannot, by nobody.

The command line begins with `ending`, whatever the command: the kernel gives the first process of a container no
SIGTERM that it does not catch. A stage that has something to save, or to say, puts its own way in its place meanwhile.

Python calls a handler between two of its own steps, and what it raises still waits for the threads of the work. So a
thread of `ending` looks on: a way that ends the work says how long that may take, and after it the process ends,
wherever its main thread is. Whichever of the two comes first says the last line.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Final

from nanosft.errors import EXIT_SIGTERM, Interrupted, Terminated

if TYPE_CHECKING:
    import asyncio

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_KEPT: Final = "what was saved is kept: the same command does the rest"
_STDERR: Final = 2
_CLEANUP_S: Final = 2.0
"""After SIGTERM, for files to be closed and threads to end where nothing has to be saved."""
_UNWIND_S: Final = 15.0
"""The same for a stage: it removes what it has on disk, and its threads may wait for a server that answers late."""
_FLUSH_S: Final = 40.0
"""After SIGTERM, for a flush that has begun: a container has 50 s."""
_LOOK_S: Final = 0.2
_MAX_TOLD: Final = 4096


class _LastWords:
    """The line that a process ends with after SIGTERM: one, whoever says it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._are_said = False

    def say(self, write: Callable[[], object]) -> None:
        """Call `write`, unless it was done; who comes second waits until the line is out, for a second at most."""
        if self._lock.acquire(timeout=1.0):
            try:
                if not self._are_said:
                    self._are_said = True
                    write()
            finally:
                self._lock.release()


say_last: Final = _LastWords().say


_raised: Final[list["_Raise | _Note"]] = []
"""The ways that have raised: what they end may have left them when the thread that looks on gets its turn."""


@dataclass(frozen=True)
class _Raise:
    """Handles SIGTERM by raising Terminated.

    Attributes:
        outcome: What becomes of the work.
        within_s: What the end may take, in seconds.
    """

    outcome: str
    within_s: float | None

    def __call__(self, signum: int, _frame: FrameType | None) -> None:
        _raised.append(self)
        raise Terminated(signum)


@dataclass(frozen=True)
class _Defer:
    """Handles SIGTERM by keeping it for later."""

    kept: list[int]
    within_s: float | None = _UNWIND_S

    def __call__(self, signum: int, _frame: FrameType | None) -> None:
        self.kept.append(signum)


@contextmanager
def ending() -> Iterator[None]:
    """SIGTERM ends the process with a line and the contract's code, unless a stage has its own way at that moment.

    It ends within two seconds, and where a stage says so within fifteen, even where the main thread is in a library
    that does not come back, or waits for threads that wait for a server.
    """

    def look_on() -> None:
        while signums := os.read(told, 1):
            if signums[0] == signal.SIGTERM:
                _end_late()
        os.close(told)

    if not _is_main_thread():
        yield
        return
    told, telling = os.pipe()
    os.set_blocking(telling, False)
    threading.Thread(target=look_on, name="nanosft-end", daemon=True).start()
    before = signal.set_wakeup_fd(telling, warn_on_full_buffer=False)
    try:
        with _handling((signal.SIGTERM,), _Raise(_KEPT, _CLEANUP_S)):
            yield
    except Terminated as exc:
        line = f"{Interrupted(exc.signum, _KEPT)}\n"
        with suppress(OSError, ValueError, AttributeError):  # it is closed, or nobody listens any more
            say_last(lambda: sys.stderr.write(line))
        raise
    finally:
        signal.set_wakeup_fd(before)
        os.close(telling)


def _end_late() -> None:
    """End the process when the way that SIGTERM has, or had, has had its time; return where it has no end."""
    told_s = time.monotonic()
    now = signal.getsignal(signal.SIGTERM)
    way = _raised[0] if _raised else now
    if not isinstance(way, _Raise | _Note | _Defer) or way.within_s is None:
        return
    end_s = told_s + way.within_s
    while (now_s := time.monotonic()) < end_s:
        time.sleep(min(_LOOK_S, end_s - now_s))
        now = signal.getsignal(signal.SIGTERM)
        if isinstance(now, _Defer):
            end_s = min(max(end_s, now_s + _CLEANUP_S), told_s + _FLUSH_S)
        if way.within_s is None:  # it had begun to save before it came to its handler
            return
    outcome = _KEPT if isinstance(way, _Defer) or isinstance(now, _Defer) else way.outcome
    line = f"{Interrupted(signal.SIGTERM, outcome)}\n"
    with suppress(OSError):  # nobody listens any more
        say_last(lambda: os.write(_STDERR, line.encode()))
    os._exit(EXIT_SIGTERM)


@contextmanager
def raising(outcome: str) -> Iterator[None]:
    """SIGTERM raises Interrupted, as SIGINT raises KeyboardInterrupt: files and processes are cleaned up.

    Inside it is Terminated, which nothing takes for an error of the work.

    Args:
        outcome: What becomes of the work; the message says it.
    """
    try:
        with _handling((signal.SIGTERM,), _Raise(outcome, _UNWIND_S)):
            yield
    except Terminated as exc:
        raise Interrupted(exc.signum, outcome) from None


@contextmanager
def saving() -> Iterator[None]:
    """SIGTERM waits until the context is left: what was paid for is being put, and what is broken off is lost."""
    kept: list[int] = []
    try:
        with _handling((signal.SIGTERM,), _Defer(kept)):
            yield
    finally:
        if kept:
            signal.raise_signal(kept[0])


@contextmanager
def diverting(handle: Callable[[int], None]) -> Iterator[None]:
    """SIGTERM calls `handle` with its number in the main thread, wherever that is, in place of what it did before.

    For a library whose loop must end in order, lest it leave the terminal as it is while one types.
    """

    def divert(signum: int, _frame: FrameType | None) -> None:
        handle(signum)

    with _handling((signal.SIGTERM,), divert):
        yield


class Caught(list[int]):
    """Numbers of the signals that came.

    Attributes:
        saves: While it is not set nothing has to be saved yet, and a process that hangs may be ended.
        ends: While it is set a signal ends the work at once.
    """

    saves: bool = False
    ends: bool = False


@dataclass(frozen=True)
class _Note:
    """Handles a signal by noting it."""

    caught: Caught
    outcome: str = _KEPT

    @property
    def within_s(self) -> float | None:
        """What the end may take, in seconds; None: the loop that looks at the list ends in order, however long."""
        return None if self.caught.saves else _UNWIND_S

    def __call__(self, signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGINT and (self.caught.ends or signum in self.caught):
            raise KeyboardInterrupt
        self.caught.append(signum)  # first: what is raised in a destructor is lost
        if self.caught.ends:
            _raised.append(self)
            raise Terminated(signum)


@contextmanager
def collecting() -> Iterator[Caught]:
    """SIGTERM and SIGINT are only noted: a list that gets each signal's number, for a loop that looks at it.

    A second SIGINT is raised as KeyboardInterrupt, for people who mean it.
    """
    caught = Caught()
    try:
        with _handling(_SIGNALS, _Note(caught)):
            yield caught
    except Terminated as exc:
        raise Interrupted(exc.signum) from None


@contextmanager
def calling(loop: "asyncio.AbstractEventLoop", handle: Callable[[int], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call `handle` with their number, between two callbacks of `loop`, which runs.

    One that comes when the loop looks for nothing more calls it at the end.
    """

    def call() -> None:
        with suppress(BlockingIOError):
            for signum in os.read(told, _MAX_TOLD):
                if signum in _SIGNALS:
                    handle(signum)

    if not _is_main_thread():
        yield
        return
    told, telling = os.pipe()
    os.set_blocking(told, False)
    os.set_blocking(telling, False)
    before = signal.set_wakeup_fd(telling, warn_on_full_buffer=False)
    loop.add_reader(told, call)
    try:
        with _handling(_SIGNALS, lambda _signum, _frame: None):  # the pipe tells of them
            yield
    finally:
        signal.set_wakeup_fd(before)
        loop.remove_reader(told)
        call()
        os.close(telling)
        os.close(told)


@contextmanager
def limiting_cpu(within_s: float) -> Iterator[None]:
    """TimeoutError where what is inside takes more of this process's CPU time; outside the main thread no limit.

    For foreign regular expressions, whose search looks at signals as it goes back and forth.
    """

    def stop(_signum: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    if not _is_main_thread():
        yield
        return
    with _handling((signal.SIGVTALRM,), stop):
        signal.setitimer(signal.ITIMER_VIRTUAL, within_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)


@contextmanager
def _handling(signums: tuple[signal.Signals, ...], handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if not _is_main_thread():
        yield
        return
    previous = {signum: signal.signal(signum, handle) for signum in signums}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
