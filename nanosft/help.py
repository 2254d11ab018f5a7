"""The help of commands: under headings, and whole at 80 columns.

A command's page is a plain value. `settings/options` makes it of the command as typer knows it; help.json holds all of
them, written by `make reference` and compared by `make check`. From there `nanosft COMMAND --help` shows it without
loading typer and pydantic, which take ten times as long as the rest.
"""

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypedDict

PAGES_PATH: Final = Path(__file__).with_name("help.json")
PANELS: Final = ("Make", "Measure", "Use", "Run")
"""The headings of `nanosft --help`, in their order."""
_COMPLETION: Final = "_NANOSFT_COMPLETE"
_HELP: Final = ("--help", "-h")
_EXAMPLE: Final = "nanosft "
_LEAST_WIDTH: Final = 40
_MOST_WIDTH: Final = 100
_INDENT: Final = 2
_MOST_COLUMN: Final = 26
"""Where descriptions begin at most; an option that is longer has a line of its own."""


class Page(TypedDict):
    """What the help of a command says.

    Attributes:
        usage: What may follow the command's name.
        text: Paragraphs with an empty line between them; those that begin with `nanosft ` are examples.
        sections: Tables one after the other, each of (heading, term, description).
        epilog: The last paragraph, or nothing.
    """

    usage: str
    text: str
    sections: list[list[tuple[str, str, str]]]
    epilog: str


def answer(arguments: Sequence[str]) -> bool:
    """Print what is asked for, if that is the version, or a command's help and nothing else."""
    if _COMPLETION in os.environ:  # a shell asks, with arguments of its own
        return False
    if list(arguments) == ["--version"]:
        sys.stdout.write(f"nanosft {version('nanosft')}\n")
        return True
    *words, last = arguments or ["--help"]
    if last not in _HELP:
        return False
    try:
        pages: dict[str, Page] = json.loads(PAGES_PATH.read_bytes())
    except FileNotFoundError:  # a checkout in which it is about to be made
        return False
    name = " ".join(words)
    if name not in pages:
        return False
    sys.stdout.write(render(name, pages[name], bold=sys.stdout.isatty()))
    return True


def render(name: str, page: Page, *, bold: bool) -> str:
    """A page as text, as wide as the terminal, within reason.

    Args:
        name: The command's name, of one word or two; empty for `nanosft` itself.
        page: What it says.
        bold: Whether headings are bold, unless `NO_COLOR` is set.
    """
    width = max(_LEAST_WIDTH, min(shutil.get_terminal_size().columns, _MOST_WIDTH))
    return "\n".join(_lines(name, page, width, bold=bold and "NO_COLOR" not in os.environ)) + "\n"


def _lines(name: str, page: Page, width: int, *, bold: bool) -> Iterator[str]:
    yield f"{_heading('Usage:', bold=bold)} {' '.join(['nanosft', *name.split(), page['usage']])}"
    for paragraph in page["text"].split("\n\n"):
        yield ""
        if paragraph.startswith(_EXAMPLE):
            yield from (" " * _INDENT + line for line in paragraph.splitlines())
        else:
            yield from textwrap.wrap(paragraph, width, break_on_hyphens=False)
    for rows in page["sections"]:
        yield from _section(rows, width, bold=bold)
    if page["epilog"]:
        yield ""
        yield from textwrap.wrap(page["epilog"], width, break_on_hyphens=False)


def _section(rows: Sequence[tuple[str, str, str]], width: int, *, bold: bool) -> Iterator[str]:
    """The rows under their headings; a heading stands where its first row is."""
    column = min(max(len(term) for _, term, _ in rows) + 2 * _INDENT, _MOST_COLUMN)
    for heading in dict.fromkeys(heading for heading, _, _ in rows):
        yield ""
        yield _heading(heading, bold=bold)
        for _, term, text in (row for row in rows if row[0] == heading):
            fits = len(term) <= column - 2 * _INDENT
            if not fits:
                yield " " * _INDENT + term
            for index, line in enumerate(textwrap.wrap(text, width - column, break_on_hyphens=False)):
                yield " " * _INDENT + (term if fits and index == 0 else "").ljust(column - _INDENT) + line


def _heading(text: str, *, bold: bool) -> str:
    return f"\033[1m{text}\033[0m" if bold else text
