"""SIGTERM and SIGINT, caught in one way by every stage; outside the main thread, where Python cannot, by nobody."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from nanosft.errors import Interrupted

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def raising(outcome: str) -> Iterator[None]:
    """SIGTERM raises Interrupted inside, as SIGINT raises KeyboardInterrupt: files and processes are cleaned up.

    Args:
        outcome: What becomes of the work; the message says it.
    """

    def stop(signum: int, _frame: FrameType | None) -> None:
        raise Interrupted(signum, outcome)

    with _handling((signal.SIGTERM,), stop):
        yield


@contextmanager
def diverting(handle: Callable[[int], None]) -> Iterator[None]:
    """SIGTERM calls `handle` with its number in the main thread, wherever that is, in place of what it did before.

    For a library whose loop must end in order, lest it leave the terminal as it is while one types.
    """

    def divert(signum: int, _frame: FrameType | None) -> None:
        handle(signum)

    with _handling((signal.SIGTERM,), divert):
        yield


@contextmanager
def collecting() -> Iterator[list[int]]:
    """SIGTERM and SIGINT are only noted: a list that gets each signal's number, for a loop that looks at it.

    A second SIGINT is raised as KeyboardInterrupt, for people who mean it.
    """
    caught: list[int] = []

    def note(signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGINT and signum in caught:
            raise KeyboardInterrupt
        caught.append(signum)

    with _handling(_SIGNALS, note):
        yield caught


@contextmanager
def calling(handle: Callable[[int], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call `handle` with their number, between two callbacks of the running event loop."""
    if not _is_main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for signum in _SIGNALS:
        loop.add_signal_handler(signum, handle, signum)
    try:
        yield
    finally:
        for signum in _SIGNALS:
            loop.remove_signal_handler(signum)


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
