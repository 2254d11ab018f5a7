"""The parts of `make chaos`, how much of each is tried, and what the processes that share the work do."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.chaos.explore import explore
from tests.chaos.points import BACKENDS, Backend, Found
from tests.chaos.real import explore_real
from tests.chaos.stages import STAGES

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SHARES: Final = {
    "train 2 ranks": (0.1, 0.1),
    "batch judged": (0.35, 0.04),
    "batch judged openai": (0.35, 0.04),
    "batch openai": (1.0, 0.1),
    "batch gone": (1.0, 0.1),
    "batch openrouter": (1.0, 0.1),
    "train": (1.0, 0.2),
    "mix": (1.0, 0.6),
    "generate": (1.0, 0.8),
    "generate judged": (1.0, 0.8),
    "eval": (1.0, 0.8),
    "export": (1.0, 0.8),
    "audit": (1.0, 0.8),
    "export data": (1.0, 0.8),
    "report": (1.0, 0.8),
}
"""Of the places where a process can be killed, and of all else, unless told otherwise; what takes longest is first."""
_EXIT_SIGTERM: Final = 143


@dataclass(frozen=True)
class Task:
    """A piece of the work, for one of the processes that share it.

    Attributes:
        stage: Name of the stage.
        backend: What its runs store in.
        is_real: Its processes are the system's.
        number: Among all tasks.
    """

    stage: str
    backend: Backend
    is_real: bool
    number: int


def list_tasks(options: argparse.Namespace) -> list[Task]:
    """All that is asked for; a run of several ranks has real processes alone, and is first because it is slow."""
    whats: list[tuple[str, Backend, bool]] = [
        (name, backend, is_real)
        for is_real in (False, True)
        for name in SHARES
        for backend in BACKENDS
        if name in (options.stage or STAGES) and backend in (options.backend or BACKENDS)
        if options.only != ("simulated" if is_real else "real")
        if is_real or STAGES[name].num_ranks == 1
    ]
    whats.sort(key=lambda what: STAGES[what[0]].num_ranks == 1)
    return [Task(*what, number) for number, what in enumerate(whats)]


def work(task: Task, options: argparse.Namespace, progress: Any, sender: "Connection[Any, Any]") -> None:
    """In a process of its own: send what a task has found, and after how many seconds; end in order when told to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process tells
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_EXIT_SIGTERM))

    def on_progress(done: int, total: int) -> None:
        progress[2 * task.number : 2 * task.number + 2] = [done, total]

    started_s = time.monotonic()
    found = _try(task, options, on_progress)
    sender.send((found, time.monotonic() - started_s))


def _try(task: Task, options: argparse.Namespace, on_progress: Callable[[int, int], None]) -> Found:
    kill_share, share = SHARES[task.stage]
    share = share if options.share is None else options.share
    kill_share = kill_share if options.kill_share is None else options.kill_share
    stage, seed = STAGES[task.stage], options.seed
    with tempfile.TemporaryDirectory(prefix="nanosft-chaos-") as folder:
        place = task.backend, Path(folder)
        if task.is_real:
            return explore_real(stage, *place, share=share, seed=seed, on_progress=on_progress)
        shares = {"share": share, "kill_share": kill_share, "seed": seed}
        return explore(stage, *place, **shares, kinds=options.kind, on_progress=on_progress)
