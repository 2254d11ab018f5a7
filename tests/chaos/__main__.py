"""python -m tests.chaos [--stage mix] [--backend s3] [--kind twin] [--share 0.1] [--kill-share 0.1] [--json found.json]

Kills and disturbs short runs at their calls: at all of them, or at a share that the seed chooses; see `tasks.SHARES`.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.chaos import table
from tests.chaos.points import BACKENDS, Found
from tests.chaos.stages import STAGES
from tests.chaos.table import Part
from tests.chaos.tasks import Task, list_tasks, work

_NUM_SHOWN: Final = 20
_MAX_CHARS: Final = 400
_END_S: Final = 20.0
"""For a process that is told to end, and ends those that it has started."""
_EXIT_WRONG: Final = 1
_EXIT_CUT_OFF: Final = 130


def main() -> None:
    """Try what is asked for, and print what came of it.

    The exit code is 1 where anything did not hold, and 130 where the run was interrupted, which may have been before.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Kills and faults at every call.")
    parser.add_argument("--stage", choices=list(STAGES), action="append")
    parser.add_argument("--backend", choices=BACKENDS, action="append")
    parser.add_argument("--kind", action="append", default=[], help="of simulated processes; all unless given")
    parser.add_argument("--share", type=float, help="of all points but kills, chosen by the seed (a share a stage)")
    parser.add_argument("--kill-share", type=float, help="of those where a process is killed (a share a stage)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("simulated", "real"), help="processes; both unless given")
    parser.add_argument("--jobs", type=int, default=(os.cpu_count() or 1) + 1, help="parts at a time (%(default)s)")
    parser.add_argument("--json", type=Path, help="file for all numbers, written anew when a part is done")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"  # ranks that lose a killed one: their stack traces bury the table
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tasks, parts, started_s = list_tasks(options), list[Part](), time.monotonic()
    is_cut_off = False
    _print(table.head())
    try:
        for part in _try_all(tasks, options):
            parts.append(part)
            _tell(part)
            _write(options.json, parts, is_whole=len(parts) == len(tasks))
    except KeyboardInterrupt:
        is_cut_off = True
    _print(table.line(table.add(parts)))
    _print(f"    {table.add(parts).kinds()}")
    _print(f"{table.conclude(parts)}; {time.monotonic() - started_s:.0f} s")
    if is_cut_off:
        _print(f"INTERRUPTED: {len(parts)} of {len(tasks)} parts were tried, and nothing is known of the others")
        sys.exit(_EXIT_CUT_OFF)
    sys.exit(_EXIT_WRONG if any(part.found.problems for part in parts) else 0)


def _try_all(tasks: list[Task], options: argparse.Namespace) -> Iterator[Part]:
    """Some parts at a time, each in a process of its own, and when it is done."""
    context = multiprocessing.get_context("spawn")
    progress = context.Array("q", 2 * len(tasks))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    waiting, begun = deque(tasks), dict[Connection, tuple[SpawnProcess, Task]]()
    with Progress(*columns, console=Console(file=sys.stderr), redirect_stdout=False, redirect_stderr=False) as bar:
        line = bar.add_task("points of the parts begun", total=None)
        try:
            while waiting or begun:
                while waiting and len(begun) < options.jobs:
                    receiver, sender = context.Pipe(duplex=False)
                    process = context.Process(target=work, args=(waiting[0], options, progress, sender))
                    process.start()
                    sender.close()
                    begun[receiver] = process, waiting.popleft()
                done = connection.wait(list(begun), timeout=1)
                for receiver in [item for item in begun if item in done]:
                    process, task = begun.pop(receiver)
                    yield Part.of(task, *_receive(receiver))
                    process.join()
                bar.update(line, completed=sum(progress[0::2]), total=sum(progress[1::2]))
        finally:
            for process, _ in begun.values():
                process.terminate()
            for process, _ in begun.values():
                process.join(_END_S)
                process.kill()


def _receive(receiver: "Connection[Any, Any]") -> tuple[Found, float]:
    try:
        found: tuple[Found, float] = receiver.recv()
    except EOFError:
        nothing = Found()
        nothing.add("a defect", "the process of this part", "ended before it had found anything: see standard error")
        return nothing, 0.0
    return found


def _tell(part: Part) -> None:
    _print(table.line(part))
    _print(f"    {part.kinds()}")
    for problem in part.found.problems[:_NUM_SHOWN]:
        _print(f"    ! {problem[:_MAX_CHARS]}")


def _write(path: Path | None, parts: list[Part], *, is_whole: bool) -> None:
    if path is not None:
        told: dict[str, Any] = {"is_whole": is_whole, "parts": [part.describe() for part in parts]}
        path.write_text(json.dumps({**told, "all": table.add(parts).describe()}, indent=1))


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
