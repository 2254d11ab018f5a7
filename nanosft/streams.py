"""The standard streams of a command: usable whatever they are, and an error is one line of the second."""

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from traceback import print_exc
from typing import Final

from nanosft.foreign import printable

_MAX_ERROR_CHARS: Final = 4000


def make_streams_usable() -> None:
    """Give a stream that was closed before the start a place to go, and one that is not UTF-8 escapes for its letters.

    A number of columns that no terminal has would be memory for as many.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - until the process ends
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if len(os.environ.get("COLUMNS", "")) > len("9999"):
        os.environ["COLUMNS"] = "9999"


def complain(message: str, *, traceback: bool = False) -> str:
    """Print a line of at most 4,000 characters to standard error, below the traceback if asked; returns the line."""
    if traceback:
        print_exc()
    line = " ".join(message.split("\n"))
    if len(line) > _MAX_ERROR_CHARS:  # it quotes what somebody else wrote
        half = _MAX_ERROR_CHARS // 2
        line = f"{line[:half]} … {line[-half:]}"
    line = printable(line)
    print(line, file=sys.stderr)  # noqa: T201 - the error line is this program's output
    return line
