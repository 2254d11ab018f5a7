"""One simulated process: what it asks of its store is counted, and at one point it is killed or one answer spoiled.

A kill is an exception that nothing catches. Whoever it passes may clean up as it likes: a process that is dead reaches
no store any more, so nothing comes of it, as nothing would of a SIGKILL. A real process gets a real SIGKILL.
"""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

Kind = Literal[
    "kill before",
    "kill after",
    "twin",
    "fails",
    "fails after",
    "stays away",
    "disk full",
    "read-only",
    "500",
    "503",
    "time-out",
    "connection lost",
    "answer lost",
    "body cut",
    "body short",
    "body damaged",
    "bucket gone",
    "key refused",
    "key expires",
    "stale listing",
    "clock back",
    "clock ahead",
]
KILLS: Final[tuple[Kind, ...]] = ("kill before", "kill after")
LOCAL_FAULTS: Final[tuple[Kind, ...]] = (
    "fails",
    "fails after",
    "stays away",
    "disk full",
    "read-only",
    "stale listing",
    "clock back",
    "clock ahead",
)
HTTP_FAULTS: Final[tuple[Kind, ...]] = (
    "500",
    "503",
    "time-out",
    "connection lost",
    "answer lost",
    "body cut",
    "body short",
    "body damaged",
    "stays away",
    "bucket gone",
    "key refused",
    "key expires",
    "stale listing",
    "clock back",
    "clock ahead",
)
PASSED_OVER: Final = frozenset(
    {"500", "503", "time-out", "connection lost", "answer lost", "body cut", "body short", "key expires"}
)
"""What a run that meets it once, on S3, must come through without being started again."""

_LASTING: Final = frozenset(
    {"stays away", "disk full", "read-only", "bucket gone", "key refused", "clock back", "clock ahead"}
)
_CLOCK_S: Final = {"clock back": -864_000.0, "clock ahead": 864_000.0}
KEY_LIVES_S: Final = 3600.0
_BODIES: Final = re.compile(r"GET ")
_LISTINGS: Final = re.compile(r"list(_directory)? |GET \S*\?list-type")
_WRITES: Final = re.compile(r"(open|commit|write_if_absent) ")
_CHANGES: Final = re.compile(r"(open|commit|write_if_absent|delete|delete_unheld) ")
_APPLIES: Final[dict[Kind, re.Pattern[str]]] = {
    "body cut": _BODIES,
    "body short": _BODIES,
    "body damaged": _BODIES,
    "stale listing": _LISTINGS,
    "disk full": _WRITES,
    "read-only": _CHANGES,
}
CHAT: Final = "chat "
"""What a call of the simulated chat API begins with: its faults are the client's tests' concern."""
JUDGE: Final = "judge "
"""What a call of the simulated judge begins with: it may stay without an answer, which ends the run."""
SERVICE: Final = "service "
"""What a call of the simulated batch service begins with."""
_PAID_FAULTS: Final[dict[str, frozenset[Kind]]] = {
    CHAT: frozenset(),
    JUDGE: frozenset({"stays away"}),
    SERVICE: frozenset(
        {"fails", "fails after", "stays away", "500", "503", "time-out", "connection lost", "answer lost"}
    ),
}
"""What can go wrong with the calls of each service that is paid, beside kills and twins."""


def applies(kind: Kind, call: str) -> bool:
    """Whether a call can have this happen to it."""
    for service, faults in _PAID_FAULTS.items():
        if call.startswith(service):
            return kind in (*KILLS, "twin", *faults)
    return kind not in _APPLIES or _APPLIES[kind].match(call) is not None


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Process:
    """A process, as its store sees it.

    Attributes:
        kind: What happens to it.
        point: At which call, from 0; None: nothing happens.
        twin: Runs a second process to its end, while this one is held.
        is_real: It is a process of the system, and is killed as one.
        on_met: Told when the point is reached.
        calls: What it asked so far: names of methods or requests, with the key.
        is_dead: Whether it was killed.
        met: The call to which it happened first; empty: it has not.
        clock_s: How far its clock is off.
        age_s: How much time has passed for its credentials.
        last_put: The file that it has put last.
    """

    kind: Kind | None = None
    point: int | None = None
    twin: Callable[[], None] | None = None
    is_real: bool = False
    on_met: Callable[[], None] = lambda: None
    calls: list[str] = field(default_factory=list)
    is_dead: bool = False
    met: str = ""
    clock_s: float = 0.0
    age_s: float = 0.0
    last_put: Path | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, call: str) -> Kind | None:
        """Count a call; what is to happen to it."""
        with self._lock:
            if self.is_dead:
                raise Killed
            number = len(self.calls)
            self.calls.append(call)
            if self.kind is None or self.point is None or number < self.point or not applies(self.kind, call):
                return None
            if self.met:
                return self.kind if self.kind in _LASTING else None
            self.met = call
        self.on_met()
        self.clock_s = _CLOCK_S.get(self.kind, 0.0)
        if self.kind == "twin":
            self._run_twin()
        if self.kind == "kill before":
            self.die()
        return self.kind

    def die(self) -> None:
        """End it."""
        if self.is_real:
            os.kill(os.getpid(), signal.SIGKILL)
        self.is_dead = True
        raise Killed

    def suffers(self, kind: Kind) -> bool:
        """Whether this has happened and lasts."""
        return self.kind == kind and bool(self.met)

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
