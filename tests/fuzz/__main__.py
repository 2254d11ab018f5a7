"""python -m tests.fuzz serve --minutes 5 [--seed 1]"""

import argparse
import sys
import time

from tests.fuzz.serve import fuzz


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Send requests of every kind.")
    parser.add_argument("what", choices=["serve"])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    found = fuzz(seconds=60 * options.minutes, seed=options.seed)
    for (kind, outcome), num in sorted(found.counts.items()):
        sys.stdout.write(f"{kind:<8} {outcome:<7} {num:>8,}\n")
    sys.stdout.write(f"{found.num_requests:,} requests of seed {options.seed}, {len(found.problems)} problems\n")
    for problem in found.problems[:20]:
        sys.stdout.write(f"{problem}\n")
    sys.exit(bool(found.problems))


if __name__ == "__main__":
    main()
