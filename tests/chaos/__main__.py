"""python -m tests.chaos [--stage mix] [--backend s3] [--kind twin] [--share 0.1] [--kill-share 0.1] [--json found.json]

Kills all processes of short runs at each of their calls, unless told otherwise, and tries a share of all else.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos.explore import BACKENDS, Backend, Found
from tests.chaos.faults import KILLS
from tests.chaos.stages import STAGES
from tests.chaos.tasks import Task, share_progress, try_task

_NUM_SHOWN, _MAX_CHARS = 20, 400
_WAYS: Final = ("rows lost", "paid twice", "manifests wrong", "another result")
_WIDTH: Final = 150
_JOBS_A_CORE: Final = 3
"""Runs in batches mostly wait, and so do processes of the system for each other."""


@dataclass(frozen=True)
class _Row:
    """What was tried of one stage on one backend."""

    stage: str
    backend: Backend
    simulated: Found
    real: Found
    seconds: float

    @classmethod
    def of(cls, stage: str, backend: Backend, found: Mapping[Task, tuple[Found, float]]) -> "_Row":
        """Of the tasks that are given, those of a stage on a backend."""
        own = {task.is_real: what for task, what in found.items() if (task.stage, task.backend) == (stage, backend)}
        nothing = Found(), 0.0
        simulated, real = own.get(False, nothing), own.get(True, nothing)
        return cls(stage, backend, simulated[0], real[0], simulated[1] + real[1])

    def cells(self) -> dict[str, int]:
        simulated, real = self.simulated.tried, self.real.tried
        kills, sigkills = sum(simulated[kind] for kind in KILLS), sum(real[kind] for kind in KILLS)
        twins, pairs = simulated["twin"], real["at once"]
        wrong = self.simulated.wrong + self.real.wrong
        return {
            "calls": self.simulated.num_calls or self.real.num_calls,
            "kills": kills,
            "SIGKILLs": sigkills,
            "twins": twins,
            "at once": pairs,
            "faults": self.tried().total() - kills - sigkills - twins - pairs,
            **{way: wrong[way] for way in _WAYS},
            "other": wrong.total() - sum(wrong[way] for way in _WAYS),
            "s": round(self.seconds),
        }

    def tried(self) -> Counter[str]:
        return self.simulated.tried + self.real.tried

    def problems(self) -> list[str]:
        return self.simulated.problems + self.real.problems


def main() -> None:
    """Try what is asked for, and print what came of it; the exit code is 1 where anything did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Kills and faults at every call.")
    parser.add_argument("--stage", choices=list(STAGES), action="append")
    parser.add_argument("--backend", choices=BACKENDS, action="append")
    parser.add_argument("--kind", action="append", default=[])
    parser.add_argument("--share", type=float, default=0.3, help="of the points (%(default)s), chosen by the seed")
    parser.add_argument("--kill-share", type=float, default=1.0, help="of those where a process is killed (all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("simulated", "real"), help="processes; both unless given")
    num_jobs = _JOBS_A_CORE * (os.cpu_count() or 1)
    parser.add_argument("--jobs", type=int, default=num_jobs, help="stages at a time (%(default)s)")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    console = Console(width=_WIDTH)
    rows = _try_all(options, console)
    console.print(_tabulate(rows))
    console.print(_tabulate_kinds(rows))
    if options.json is not None:
        options.json.write_text(json.dumps([_describe(row) for row in rows], indent=1))
    sys.exit(any(row.problems() for row in rows))


def _try_all(options: argparse.Namespace, console: Console) -> list[_Row]:
    """Each stage on each backend, simulated and real, some at a time; what a row has found is printed when it has."""
    pairs = [(name, backend) for name in options.stage or STAGES for backend in options.backend or BACKENDS]
    simulated = [(*pair, False) for pair in pairs if options.only != "real" and STAGES[pair[0]].num_ranks == 1]
    real = [(*pair, True) for pair in pairs if options.only != "simulated"]
    tasks = [Task(*what, number) for number, what in enumerate(simulated + real)]
    context = multiprocessing.get_context("spawn")
    progress = context.Array("q", 2 * len(tasks))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    found: dict[Task, tuple[Found, float]] = {}
    with (
        Progress(*columns, console=Console(file=sys.stderr), redirect_stdout=False, redirect_stderr=False) as bar,
        ProcessPoolExecutor(options.jobs, context, share_progress, (progress,), max_tasks_per_child=1) as pool,
    ):
        line = bar.add_task("points of the stages begun", total=None)
        waiting = {pool.submit(try_task, task, options): task for task in tasks}
        while waiting:
            for future in wait(waiting, timeout=1, return_when=FIRST_COMPLETED).done:
                task = waiting.pop(future)
                found[task] = future.result()
                row = _Row.of(task.stage, task.backend, {task: found[task]})
                console.print(f"{task.stage}, {task.backend}, {'real' if task.is_real else 'simulated'}: {row.cells()}")
                for problem in row.problems()[:_NUM_SHOWN]:
                    console.print(f"    {problem[:_MAX_CHARS]}", markup=False)
            bar.update(line, completed=sum(progress[0::2]), total=sum(progress[1::2]))
    return [_Row.of(*pair, found) for pair in pairs]


def _tabulate(rows: list[_Row]) -> Table:
    """A line a stage and backend, and their sums."""
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row.cells())
    table = Table("stage", "store", *rows[0].cells())
    for row in rows:
        table.add_row(row.stage, row.backend, *map(str, row.cells().values()))
    table.add_section()
    table.add_row("all", "", *(str(total[name]) for name in rows[0].cells()))
    return table


def _tabulate_kinds(rows: list[_Row]) -> Table:
    """How often each kind was tried, by stage."""
    names = list(dict.fromkeys(row.stage for row in rows))
    by_stage = {name: sum((row.tried() for row in rows if row.stage == name), Counter[str]()) for name in names}
    table = Table("kind", *names, "all")
    for kind in dict.fromkeys(kind for counts in by_stage.values() for kind in counts):
        numbers = [by_stage[name][kind] for name in names]
        table.add_row(kind, *map(str, numbers), str(sum(numbers)))
    return table


def _describe(row: _Row) -> dict[str, Any]:
    tried = {"simulated": dict(row.simulated.tried), "real": dict(row.real.tried)}
    return {"stage": row.stage, "store": row.backend, **row.cells(), "tried": tried, "problems": row.problems()}


if __name__ == "__main__":
    main()
