"""Run the command line: `nanosft …`, and `python -m nanosft …`, the form that torchrun starts.

Light on purpose: worker processes import the main module anew.
"""

from importlib import import_module


def main() -> None:
    """See `nanosft.cli.main`."""
    import_module("nanosft.cli").main()


if __name__ == "__main__":
    main()
