"""python -m tests.chaos [--stage mix] [--backend s3] [--kind twin] [--share 0.1] [--seed 1] [--json found.json]"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos.explore import BACKENDS, Backend, Found, explore
from tests.chaos.faults import KILLS
from tests.chaos.real import explore_real
from tests.chaos.stages import STAGES, Stage

_NUM_SHOWN, _MAX_CHARS = 20, 400
_WAYS: Final = ("rows lost", "paid twice", "manifests wrong", "another result")
_WIDTH: Final = 150


@dataclass(frozen=True)
class _Row:
    """What was tried of one stage on one backend."""

    stage: str
    backend: Backend
    simulated: Found
    real: Found
    seconds: float

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
    parser.add_argument("--share", type=float, default=1.0, help="of the points, chosen by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("simulated", "real"), help="processes; both unless given")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    console, rows = Console(width=_WIDTH), list[_Row]()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(file=sys.stderr), redirect_stdout=False, redirect_stderr=False)
    with bar:
        for name in options.stage or STAGES:
            for backend in options.backend or BACKENDS:
                rows.append(_try(STAGES[name], backend, options, bar))
                console.print(f"{name}, {backend}: {rows[-1].cells()}")
                for problem in rows[-1].problems()[:_NUM_SHOWN]:
                    console.print(f"    {problem[:_MAX_CHARS]}", markup=False)
    console.print(_tabulate(rows))
    console.print(_tabulate_kinds(rows))
    if options.json is not None:
        options.json.write_text(json.dumps([_describe(row) for row in rows], indent=1))
    sys.exit(any(row.problems() for row in rows))


def _try(stage: Stage, backend: Backend, options: argparse.Namespace, bar: Progress) -> _Row:
    started_s = time.monotonic()

    def on(description: str) -> Callable[[int, int], None]:
        task = bar.add_task(f"{stage.name}, {backend}, {description}", total=None)
        return lambda done, total: bar.update(task, completed=done, total=total)

    simulated = real = Found()
    with tempfile.TemporaryDirectory(prefix="nanosft-chaos-") as folder:
        if stage.num_ranks == 1 and options.only != "real":
            simulated = explore(
                stage,
                backend,
                Path(folder),
                share=options.share,
                seed=options.seed,
                kinds=options.kind,
                on_progress=on("simulated"),
            )
    with tempfile.TemporaryDirectory(prefix="nanosft-chaos-") as folder:
        if options.only != "simulated":
            real = explore_real(
                stage, backend, Path(folder), share=options.share, seed=options.seed, on_progress=on("processes")
            )
    return _Row(stage.name, backend, simulated, real, time.monotonic() - started_s)


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
