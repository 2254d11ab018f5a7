"""Run the command line: `nanosft …`, and `python -m nanosft …`, the form that torchrun starts.

Light on purpose: worker processes import the main module anew.
"""

import sys
from importlib import import_module


def main() -> None:
    """Answer `--help` and `--version` at once (`nanosft.help`), or do what `nanosft.cli.main` says."""
    with import_module("nanosft.signals").ending():
        if not import_module("nanosft.help").answer(sys.argv[1:]):
            import_module("nanosft.cli").main()


if __name__ == "__main__":
    main()
