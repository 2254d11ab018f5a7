"""What the processes that share the work of `make chaos` do."""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.explore import Backend, Found, explore
from tests.chaos.real import explore_real
from tests.chaos.stages import STAGES

_progress: Any = None


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


def share_progress(progress: Any) -> None:
    """In a process that shares the work: take what it counts in."""
    global _progress  # noqa: PLW0603 - a shared array reaches a process of a pool by its initializer alone
    _progress = progress


def try_task(task: Task, options: argparse.Namespace) -> tuple[Found, float]:
    """In a process that shares the work: what a task has found, and after how many seconds."""
    started_s = time.monotonic()

    def on_progress(done: int, total: int) -> None:
        _progress[2 * task.number : 2 * task.number + 2] = [done, total]

    stage, common = STAGES[task.stage], {"share": options.share, "seed": options.seed, "on_progress": on_progress}
    with tempfile.TemporaryDirectory(prefix="nanosft-chaos-") as folder:
        if task.is_real:
            found = explore_real(stage, task.backend, Path(folder), **common)
        else:
            more = {"kill_share": options.kill_share, "kinds": options.kind}
            found = explore(stage, task.backend, Path(folder), **common, **more)
    return found, time.monotonic() - started_s
