"""python -m tests.fuzz serve|readers --minutes 10 [--seed 1]; or --seconds 30"""

import argparse
import sys
import time

from tests.fuzz.readers import Found as OfReaders
from tests.fuzz.readers import fuzz_readers
from tests.fuzz.serve import fuzz


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Send broken requests, or have readers read broken input."
    )
    parser.add_argument("what", choices=["serve", "readers"])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--seconds", type=float, help="in place of --minutes")
    options = parser.parse_args()
    seconds = 60 * options.minutes if options.seconds is None else options.seconds
    found = (fuzz if options.what == "serve" else fuzz_readers)(seconds=seconds, seed=options.seed)
    for (kind, outcome), num in sorted(found.counts.items()):
        sys.stdout.write(f"{kind:<12} {outcome:<7} {num:>8,}\n")
    sys.stdout.write(f"{found.counts.total():,} of seed {options.seed}, {len(found.problems)} problems\n")
    if isinstance(found, OfReaders):
        sys.stdout.write(f"{found.num_kept:,} of them reached a line that none before had, and were changed in turn\n")
    for problem in found.problems[:20]:
        sys.stdout.write(f"{problem}\n")
    sys.exit(bool(found.problems))


if __name__ == "__main__":
    main()
