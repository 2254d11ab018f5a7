"""python -m tests.soak road [--scale 0.1] [--rows 500] [--steps 60] [--seed 1] [--json]
python -m tests.soak load [serve train mix generate] [--scale 0.1] [--json]
python -m tests.soak shards [--rows 100000] [--shards 10] [--mode batch] [--jobs 2]
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.soak.loads import LATENCY_S, LOADS, Load, load_generate
from tests.soak.road import walk_road
from tests.soak.shards import make_in_shards
from tests.soak.table import render
from tests.soak.world import Sizes, open_world


def main() -> None:
    """Walk the road, or run the loads; exit code 1 where something was lost or grew."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Long runs, with and without faults.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    road = kinds.add_parser("road", help="every stage, stopped and killed, beside the same undisturbed")
    road.add_argument("--rows", type=int, help="generated one by one; half as many in batches (1,200)")
    road.add_argument("--steps", type=int, help="of training (120)")
    road.add_argument("--seed", type=int, default=0, help="of the faults, and of the moments of stops and kills")
    road.add_argument("--keep", help="directory for all that is made; it has to be absent")
    load = kinds.add_parser("load", help="memory, descriptors and threads of long runs")
    load.add_argument("names", nargs="*", metavar="load", help=f"any of {', '.join(LOADS)} (all)")
    load.add_argument("--latency-s", type=float, default=LATENCY_S, help="of an answer to generate (8)")
    for each in (road, load):
        each.add_argument("--scale", type=float, default=1.0, help="share of the rows, steps, requests and kills")
        each.add_argument("--json", action="store_true", help="one JSON object a line")
    shards = kinds.add_parser("shards", help="many rows by many shards: requests to the store, and the last shard")
    shards.add_argument("--rows", type=int, default=100_000, help="in all (%(default)s)")
    shards.add_argument("--shards", type=int, default=10, help="processes (%(default)s)")
    shards.add_argument("--mode", choices=("sync", "batch"), default="sync")
    shards.add_argument("--jobs", type=int, default=os.cpu_count(), help="shards at a time (%(default)s)")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.kind == "road":
        sizes = Sizes.scaled(options.scale)
        sizes = replace(sizes, rows=options.rows or sizes.rows, steps=options.steps or sizes.steps)
        sys.exit(_walk(sizes, options.seed, options.keep, as_json=options.json))
    if options.kind == "shards":
        sys.exit(_make_in_shards(options))
    if unknown := set(options.names) - set(LOADS):
        parser.error(f"no load {min(unknown)!r}; there are {', '.join(LOADS)}")
    loads: dict[str, Callable[[Path, float], Load]] = {
        **LOADS,
        "generate": partial(load_generate, latency_s=options.latency_s),
    }
    flat = [_run_load(loads[name], options.scale, as_json=options.json) for name in options.names or LOADS]
    sys.exit(not all(flat))


def _walk(sizes: Sizes, seed: int, keep: str | None, *, as_json: bool) -> bool:
    """Walk the road and print the table; whether anything went wrong."""
    started_s = time.monotonic()
    with ExitStack() as stack:
        folder = Path(keep) if keep else Path(stack.enter_context(TemporaryDirectory(prefix="nanosft-soak-")))
        folder.mkdir(exist_ok=not keep, parents=True)
        world = stack.enter_context(open_world(folder, sizes, seed))
        stages = []
        for stage in walk_road(world):
            stages.append(stage)
            sys.stderr.write(f"{stage.name}: {'; '.join(stage.faults) or 'well'}\n")
            if as_json:
                sys.stdout.write(json.dumps(asdict(stage)) + "\n")
                sys.stdout.flush()
    if not as_json:
        sys.stdout.write(render(stages))
    store_faults = ", ".join(f"{count} x {name}" for name, count in sorted(world.store_faults.items()))
    sys.stderr.write(f"seed {seed}, {time.monotonic() - started_s:.0f} s; of requests to S3: {store_faults}\n")
    return any(stage.faults for stage in stages)


def _make_in_shards(options: argparse.Namespace) -> bool:
    """Make a set in shards and print what it took; whether a row is missing."""
    with TemporaryDirectory(prefix="nanosft-soak-") as folder:
        made = make_in_shards(
            Path(folder),
            num_rows=options.rows,
            num_shards=options.shards,
            mode=options.mode,
            jobs=options.jobs,
            on_done=lambda num: sys.stderr.write(f"{num} of {options.shards} shards\n"),
        )
    total = made.requests.total() + made.last_requests.total()
    sys.stdout.write(
        f"{made.delivered:,} of {made.num_rows:,} rows, {made.num_shards:,} shards, {options.mode}: "
        f"{total:,} requests, {total / made.num_rows:.4f} a row\n"
        f"  all but the last: {made.elapsed_s:.0f} s, {options.jobs} at a time\n"
    )
    for who, requests, num in (("a shard", made.requests, made.num_shards - 1), ("the last", made.last_requests, 1)):
        kinds = ", ".join(f"{count / num:.1f} {operation}" for operation, count in requests.most_common())
        sys.stdout.write(f"  {who}: {requests.total() / num:.1f} requests ({kinds})\n")
    sys.stdout.write(f"  the last: {made.last_s:.0f} s, {made.last_mib:.0f} MiB\n")
    return made.delivered != made.num_rows


def _run_load(run: Callable[[Path, float], Load], scale: float, *, as_json: bool) -> bool:
    """Run one and print its figures; whether all of them are flat."""
    with TemporaryDirectory(prefix="nanosft-soak-") as folder:
        load = run(Path(folder), scale)
    courses = load.courses()
    if as_json:
        figures = {measure: {**asdict(course), "flat": flat} for measure, (course, flat) in courses.items()}
        said = {"load": load.name, "elapsed_s": round(load.elapsed_s), "largest_mib": load.watched.largest_mib}
        sys.stdout.write(json.dumps({**said, **figures, "samples": load.watched.samples}) + "\n")
    else:
        _show(load)
    sys.stdout.flush()
    return all(flat for _, flat in courses.values())


def _show(load: Load) -> None:
    allowed = f", {load.allowed_mib:.0f} MiB of growth meant" if load.allowed_mib else ""
    largest = f"largest process {load.watched.largest_mib:.0f} MiB"
    largest += f" of {load.limit_mib:.0f}" if load.limit_mib is not None else ""
    sys.stdout.write(f"{load.name}: {load.elapsed_s:.0f} s, {len(load.watched.samples)} samples, {largest}{allowed}\n")
    heads = ("first quarter", "second", "median", "last quarter", "max", "flat")
    sys.stdout.write(f"  {'':<12}" + "".join(f"{head:>15}" for head in heads) + "\n")
    for measure, (course, flat) in load.courses().items():
        values = "".join(f"{value:>15.0f}" for value in asdict(course).values())
        sys.stdout.write(f"  {measure:<12}{values}{'yes' if flat else 'NO':>15}\n")


if __name__ == "__main__":
    main()
