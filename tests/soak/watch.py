"""What a command and all its processes take, second by second, as /proc tells it; and whether that is flat."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

MIB: Final = 1 << 20
ROOT: Final = Path(__file__).parents[2]
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_INTERVAL_S: Final = 1.0
SLACK_SHARE: Final = 0.05
SLACK: Final = {"MiB": 20.0, "descriptors": 2.0, "threads": 2.0}
"""What a last quarter may lie above the second one, beside 5 % of it."""


def list_tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def kill_tree(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to a process, held still before so that it starts no other meanwhile, and to all that descend from it."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGSTOP)
    for pid in reversed(list_tree(process.pid)) if process.poll() is None else []:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@dataclass
class Watched:
    """Samples of a process tree.

    Attributes:
        samples: Of each second: resident MiB, open file descriptors and threads, of all its processes together.
        largest_mib: The most that one process had resident.
    """

    samples: list[dict[str, float]] = field(default_factory=list)
    largest_mib: float = 0.0

    def sample(self, pid: int) -> None:
        """Add what there is now; nothing once the process is gone."""
        found = dict.fromkeys(SLACK, 0.0)
        for each in list_tree(pid):
            with suppress(OSError):
                folder = Path("/proc", str(each))
                resident_mib = int((folder / "statm").read_text().split()[1]) * _PAGE_BYTES / MIB
                found["descriptors"] += sum(1 for _ in (folder / "fd").iterdir())
                found["threads"] += sum(1 for _ in (folder / "task").iterdir())
                found["MiB"] += resident_mib
                self.largest_mib = max(self.largest_mib, resident_mib)
        if found["MiB"]:
            self.samples.append(found)


@contextmanager
def watching(pid: int, *, interval_s: float = _INTERVAL_S) -> Iterator[Watched]:
    """Sample a process at every interval while the context is open."""
    found, done = Watched(), threading.Event()

    def watch() -> None:
        while not done.wait(interval_s):
            found.sample(pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def run_watched(command: Sequence[str], *, log: Path) -> Watched:
    """Run a command from its start to its end, which has to be exit code 0; `log` is the file for what it prints."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT)
        try:
            with watching(process.pid) as found:
                process.wait()
        finally:
            kill_tree(process)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[2:5])}: exit code {process.returncode}: {log.read_text()[-2000:]}")
    return found


@dataclass(frozen=True)
class Course:
    """How one measure went: medians of quarters of the samples, and the largest of all."""

    first: float
    second: float
    middle: float
    last: float
    largest: float

    def is_flat(self, measure: str, allowed: float = 0.0) -> bool:
        """Whether the last quarter lies at most 5 % and the measure's slack (and what is allowed) above the second."""
        return self.last <= self.second * (1 + SLACK_SHARE) + SLACK[measure] + allowed


def summarize(values: Sequence[float]) -> Course:
    """The course of at least four samples."""
    if len(values) < 4:
        raise ValueError(f"{len(values)} samples have no quarters")
    edges = [round(len(values) * quarter / 4) for quarter in range(5)]
    first, second, _, last = (median(values[start:end]) for start, end in pairwise(edges))
    return Course(first, second, median(values), last, max(values))
