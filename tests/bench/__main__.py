"""Run the benchmarks: `python -m tests.bench [area …] [--full]`, or `make bench`.

Without names every area runs, in half an hour in all: quick sizes of everything but mix, which goes to five million
rows and 40 GB of temporary files. `--full` takes the sizes that ARCHITECTURE.md quotes. Machines are shared and noisy:
quote ratios of one run rather than figures of two.
"""

import argparse
import importlib
import os
import platform
from pathlib import Path

from rich.console import Console

from nanosft.progress import configure_logging


def main() -> None:
    """Run the areas that are asked for, one after another."""
    areas = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Print benchmark figures and ratios.")
    parser.add_argument("areas", nargs="*", metavar="area", help=f"Any of {', '.join(areas)}.")
    parser.add_argument("--full", action="store_true", help="The sizes that ARCHITECTURE.md quotes (an hour).")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.areas) - set(areas)):
        parser.error(f"no area {unknown[0]!r}; there are {', '.join(areas)}")
    console = Console(width=140)
    configure_logging()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    console.print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load average {load}")
    for area in arguments.areas or areas:
        console.rule(area)
        importlib.import_module(f"tests.bench.bench_{area}").run(console, quick=not arguments.full)


if __name__ == "__main__":
    main()
