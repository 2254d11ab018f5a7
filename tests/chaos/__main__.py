"""python -m tests.chaos [--stage mix] [--backend s3] [--kind twin] [--share 0.1] [--seed 1]"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos.explore import BACKENDS, explore
from tests.chaos.faults import KILLS
from tests.chaos.stages import STAGES

_NUM_SHOWN, _MAX_CHARS = 20, 400
_WAYS = ("rows lost", "paid twice", "manifests wrong", "another result")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Kills and faults at every call.")
    parser.add_argument("--stage", choices=list(STAGES), action="append")
    parser.add_argument("--backend", choices=BACKENDS, action="append")
    parser.add_argument("--kind", action="append", default=[])
    parser.add_argument("--share", type=float, default=1.0, help="of the points, chosen by the seed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    total: Counter[str] = Counter()
    problems: list[str] = []
    _print("stage", "store", "calls", "kills", "twins", "faults", *_WAYS, "other", "s")
    for name in options.stage or STAGES:
        for backend in options.backend or BACKENDS:
            started_s = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="nanosft-chaos-") as folder:
                found = explore(
                    STAGES[name],
                    backend,
                    Path(folder),
                    share=options.share,
                    seed=options.seed,
                    kinds=tuple(options.kind),
                )
            kills, twins = sum(found.tried[kind] for kind in KILLS), found.tried["twin"]
            row = {
                "calls": found.num_calls,
                "kills": kills,
                "twins": twins,
                "faults": found.tried.total() - kills - twins,
                **{way: found.wrong[way] for way in _WAYS},
                "other": found.wrong.total() - sum(found.wrong[way] for way in _WAYS),
                "s": round(time.monotonic() - started_s),
            }
            total.update(row)
            problems += found.problems
            _print(name, backend, *row.values())
            for problem in found.problems[:_NUM_SHOWN]:
                sys.stdout.write(f"    {problem[:_MAX_CHARS]}\n")
    _print("all", "", *(total[name] for name in row))
    sys.exit(bool(problems))


def _print(*cells: object) -> None:
    sys.stdout.write("  ".join(f"{cell!s:<{max(6, len(str(cell)))}}" for cell in cells) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
