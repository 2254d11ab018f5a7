"""SIGTERM and SIGINT, caught in one way by every stage; outside the main thread, where Python cannot, by nobody.

The command line begins with `ending`, whatever the command: the kernel gives the first process of a container no
SIGTERM that it does not catch. A stage that has something to save, or to say, puts its own way in its place meanwhile.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Final

from nanosft.errors import EXIT_SIGTERM, Interrupted, Terminated

if TYPE_CHECKING:
    import asyncio

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_LAST_WORDS: Final = f"{Interrupted(signal.SIGTERM, 'what was saved is kept: the same command does the rest')}\n"
_STDERR: Final = 2
_CLEANUP_S: Final = 2.0
"""After SIGTERM, for files to be closed and threads to end where nothing has to be saved."""


@contextmanager
def ending() -> Iterator[None]:
    """SIGTERM ends the process with a line and the contract's code, unless a stage has its own way at that moment.

    It ends within two seconds, even where the main thread is in a library that does not come back, or waits for threads
    that wait for a server.
    """

    def stop(signum: int, _frame: FrameType | None) -> None:
        raise Terminated(signum)

    def end_late() -> None:
        while signums := os.read(told, 1):
            if signums[0] == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is stop:
                time.sleep(_CLEANUP_S)
                with suppress(OSError):  # nobody listens any more
                    os.write(_STDERR, _LAST_WORDS.encode())
                os._exit(EXIT_SIGTERM)
        os.close(told)

    if not _is_main_thread():
        yield
        return
    told, telling = os.pipe()
    os.set_blocking(telling, False)
    threading.Thread(target=end_late, name="nanosft-end", daemon=True).start()
    before = signal.set_wakeup_fd(telling, warn_on_full_buffer=False)
    try:
        with _handling((signal.SIGTERM,), stop):
            yield
    except Terminated:
        with suppress(OSError, ValueError, AttributeError):  # it is closed, or nobody listens any more
            sys.stderr.write(_LAST_WORDS)
        raise
    finally:
        signal.set_wakeup_fd(before)
        os.close(telling)


@contextmanager
def raising(outcome: str) -> Iterator[None]:
    """SIGTERM raises Interrupted, as SIGINT raises KeyboardInterrupt: files and processes are cleaned up.

    Inside it is Terminated, which nothing takes for an error of the work.

    Args:
        outcome: What becomes of the work; the message says it.
    """

    def stop(signum: int, _frame: FrameType | None) -> None:
        raise Terminated(signum)

    try:
        with _handling((signal.SIGTERM,), stop):
            yield
    except Terminated as exc:
        raise Interrupted(exc.signum, outcome) from None


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
        ends: While it is set a signal ends the work at once: nothing has to be saved yet.
    """

    ends: bool = False


@contextmanager
def collecting() -> Iterator[Caught]:
    """SIGTERM and SIGINT are only noted: a list that gets each signal's number, for a loop that looks at it.

    A second SIGINT is raised as KeyboardInterrupt, for people who mean it.
    """
    caught = Caught()

    def note(signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGINT and (caught.ends or signum in caught):
            raise KeyboardInterrupt
        caught.append(signum)  # first: what is raised in a destructor is lost
        if caught.ends:
            raise Terminated(signum)

    try:
        with _handling(_SIGNALS, note):
            yield caught
    except Terminated as exc:
        raise Interrupted(exc.signum) from None


@contextmanager
def calling(loop: "asyncio.AbstractEventLoop", handle: Callable[[int], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call `handle` with their number, between two callbacks of `loop`, which runs."""
    if not _is_main_thread():
        yield
        return
    previous = {signum: signal.getsignal(signum) for signum in _SIGNALS}
    told = signal.set_wakeup_fd(-1)
    for signum in _SIGNALS:
        loop.add_signal_handler(signum, handle, signum)
    try:
        yield
    finally:
        for signum, handler in previous.items():
            loop.remove_signal_handler(signum)
            signal.signal(signum, handler)  # the loop leaves none
        signal.set_wakeup_fd(told)


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
