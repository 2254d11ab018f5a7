"""One simulated process: what it asks of its store is counted, and at one point it is killed or one answer spoiled.

A kill is an exception that nothing catches. Whoever it passes may clean up as it likes: a process that is dead reaches
no store any more, so nothing comes of it, as nothing would of a SIGKILL. Time does not pass: `time.sleep` returns at
once, in boto's retries too.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import pytest

from nanosft.errors import StoreError
from nanosft.store import local

Kind = Literal[
    "kill before",
    "kill after",
    "twin",
    "fails",
    "fails after",
    "stays away",
    "500",
    "503",
    "time-out",
    "connection lost",
    "answer lost",
    "body cut",
    "body damaged",
]
KILLS: Final[tuple[Kind, ...]] = ("kill before", "kill after")
LOCAL_FAULTS: Final[tuple[Kind, ...]] = ("fails", "fails after", "stays away")
HTTP_FAULTS: Final[tuple[Kind, ...]] = (
    "500",
    "503",
    "time-out",
    "connection lost",
    "answer lost",
    "body cut",
    "body damaged",
    "stays away",
)


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Process:
    """A process, as its store sees it.

    Attributes:
        kind: What happens to it.
        point: At which call, from 0; None: nothing happens.
        twin: Runs a second process to its end, while this one is held.
        calls: What it asked so far: names of methods or requests, with the key.
        is_dead: Whether it was killed.
        was_met: Whether the point was reached.
    """

    kind: Kind | None = None
    point: int | None = None
    twin: Callable[[], None] | None = None
    calls: list[str] = field(default_factory=list)
    is_dead: bool = False
    was_met: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, call: str) -> Kind | None:
        """Count a call; what is to happen to it."""
        with self._lock:
            if self.is_dead:
                raise Killed
            number = len(self.calls)
            self.calls.append(call)
            if self.point is None or number < self.point:
                return None
            is_first = not self.was_met
            self.was_met = True
        if self.kind == "stays away":
            return self.kind
        if not is_first:
            return None
        if self.kind == "twin":
            self._run_twin()
        if self.kind == "kill before":
            self.die()
        return self.kind

    def die(self) -> None:
        """End it."""
        self.is_dead = True
        raise Killed

    def _run_twin(self) -> None:
        """Another process runs from its beginning to its end; its own calls are not counted."""
        global _process  # noqa: PLW0603 - the processes take turns
        assert self.twin is not None
        held, _process = _process, Process()
        thread = threading.Thread(target=self.twin)  # an event loop of its own
        thread.start()
        thread.join()
        _process = held


_process = Process()


def current() -> Process:
    """The process that runs now."""
    return _process


@contextmanager
def running(process: Process) -> Iterator[Process]:
    """Everything is asked by this process."""
    global _process  # noqa: PLW0603 - as above
    before, _process = _process, process
    try:
        yield process
    finally:
        _process = before


@contextmanager
def simulated_stores() -> Iterator[None]:
    """Every local store counts its calls, and no one sleeps."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("read", "read_range", "write_if_absent", "discard_unfinished", "delete", "stat"):
            patch.setattr(local.LocalStore, name, _counted(name, getattr(local.LocalStore, name)))
        for name in ("list", "list_directory"):
            method = getattr(local.LocalStore, name)
            patch.setattr(local.LocalStore, name, _counted(name, method, to_list=name == "list"))
        patch.setattr(local.LocalStore, "open_read", _open_read(local.LocalStore.open_read))
        patch.setattr(local._LocalWriter, "__enter__", _counted("open", local._LocalWriter.__enter__))
        patch.setattr(local._LocalWriter, "__exit__", _exit(local._LocalWriter.__exit__))
        patch.setattr(time, "sleep", lambda _seconds: None)
        patch.setattr(os, "fsync", lambda _descriptor: None)  # the machine itself goes on
        yield


def _spoil(call: str, *, is_done: bool) -> None:
    """What comes of a call after or before which something happens."""
    raise StoreError(f"{call}: made to fail {'after' if is_done else 'before'} it took place")


def _around(call: str, do: Callable[[], Any]) -> Any:
    process = current()
    kind = process.take(call)
    if kind in ("fails", "stays away"):
        _spoil(call, is_done=False)
    answer = do()
    if kind == "kill after":
        process.die()
    if kind == "fails after":
        _spoil(call, is_done=True)
    return answer


def _counted(name: str, method: Callable[..., Any], *, to_list: bool = False) -> Callable[..., Any]:
    def call(self: Any, key: str = "", *arguments: Any, **how: Any) -> Any:
        if name == "open":
            return _around(f"open {self._key}", lambda: method(self))
        what = f"{name} {key}"
        if to_list:
            return iter(_around(what, lambda: list(method(self, key, *arguments, **how))))
        return _around(what, lambda: method(self, key, *arguments, **how))

    return call


def _open_read(method: Callable[..., Any]) -> Callable[..., Any]:
    @contextmanager
    def open_read(self: Any, key: str, **how: Any) -> Iterator[Any]:
        _around(f"open_read {key}", lambda: None)
        with method(self, key, **how) as stream:
            yield stream

    return open_read


def _exit(method: Callable[..., None]) -> Callable[..., None]:
    def leave(self: Any, kind: Any, value: Any, at: Any) -> None:
        if current().is_dead:  # nothing is cleaned up by a dead process: the temporary file stays
            self._file.close()
            return
        if kind is not None:
            method(self, kind, value, at)
            return
        try:
            _around(f"commit {self._key}", lambda: method(self, None, None, None))
        except StoreError:
            self._discard()
            raise

    return leave
