"""Run the command line: `python -m nanosft …`, the form that torchrun starts."""

from nanosft.cli import main

main()
