"""python -m tests.soak [load [serve train mix generate]] [--scale 0.1] [--json]"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.soak.loads import LOADS, Load


def main() -> None:
    """Walk the road, or run the loads; exit code 1 where something was lost or grew."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Long runs, with and without faults.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    load = kinds.add_parser("load", help="memory, descriptors and threads of long runs")
    load.add_argument("names", nargs="*", metavar="load", help=f"any of {', '.join(LOADS)} (all)")
    load.add_argument("--scale", type=float, default=1.0, help="share of the rows, steps and requests")
    load.add_argument("--json", action="store_true", help="one JSON object a load")
    options = parser.parse_args()
    if unknown := set(options.names) - set(LOADS):
        parser.error(f"no load {min(unknown)!r}; there are {', '.join(LOADS)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    growing = [name for name in options.names or LOADS if not _run_load(name, options.scale, as_json=options.json)]
    sys.exit(bool(growing))


def _run_load(name: str, scale: float, *, as_json: bool) -> bool:
    """Run one and print its figures; whether all of them are flat."""
    with tempfile.TemporaryDirectory(prefix="nanosft-soak-") as folder:
        load = LOADS[name](Path(folder), scale)
    courses = load.courses()
    if as_json:
        figures = {measure: {**asdict(course), "flat": flat} for measure, (course, flat) in courses.items()}
        sys.stdout.write(json.dumps({"load": load.name, "elapsed_s": round(load.elapsed_s), **figures}) + "\n")
    else:
        _show(load)
    sys.stdout.flush()
    return all(flat for _, flat in courses.values())


def _show(load: Load) -> None:
    allowed = f", {load.allowed_mib:.0f} MiB of growth meant" if load.allowed_mib else ""
    largest = f"largest process {load.watched.largest_mib:.0f} MiB"
    sys.stdout.write(f"{load.name}: {load.elapsed_s:.0f} s, {len(load.watched.samples)} samples, {largest}{allowed}\n")
    heads = ("first quarter", "second", "median", "last quarter", "max", "flat")
    sys.stdout.write(f"  {'':<12}" + "".join(f"{head:>15}" for head in heads) + "\n")
    for measure, (course, flat) in load.courses().items():
        values = "".join(f"{value:>15.0f}" for value in asdict(course).values())
        sys.stdout.write(f"  {measure:<12}{values}{'yes' if flat else 'NO':>15}\n")


if __name__ == "__main__":
    main()
