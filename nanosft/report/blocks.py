"""What a page is made of: sections of tables, bars, figures, commands and answers. Text alone, and SVG of our own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import ClassVar, Final, Literal

from markupsafe import Markup

_NUMBER: Final = re.compile(r"[+-]?\$?\d[\d,]*(\.\d+)?%?")


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph, with code between backticks; `missing` where it says what is not there and who makes it."""

    kind: ClassVar[str] = "text"
    text: str
    tone: Literal["plain", "missing", "warning"] = "plain"


@dataclass(frozen=True, slots=True)
class Facts:
    """A few named values."""

    kind: ClassVar[str] = "facts"
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Table:
    """A table; columns of numbers stand to the right."""

    kind: ClassVar[str] = "table"
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False

    @property
    def numeric(self) -> set[int]:
        """The columns, but the first, whose cells are all numbers or empty."""
        columns = range(1, len(self.head))
        return {place for place in columns if all(not row[place] or _NUMBER.fullmatch(row[place]) for row in self.rows)}


@dataclass(frozen=True, slots=True)
class Bars:
    """Counts with a bar each, as `(label, count, said)`."""

    kind: ClassVar[str] = "bars"
    caption: str
    items: Sequence[tuple[str, float, str]]

    @property
    def most(self) -> float:
        """The longest bar's value."""
        return max((value for _, value, _ in self.items), default=0) or 1


@dataclass(frozen=True, slots=True)
class Heat:
    """Counts of pairs: a row for each first, a column for each second; a number in each cell, beside its shade."""

    kind: ClassVar[str] = "heat"
    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[int]]]

    @property
    def most(self) -> int:
        """The largest count."""
        return max((max(counts, default=0) for _, counts in self.rows), default=0) or 1


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with its caption, and the names of its lines in the order of their classes."""

    kind: ClassVar[str] = "figure"
    caption: str
    svg: Markup
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Commands:
    """Commands to copy, each with what it does."""

    kind: ClassVar[str] = "commands"
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Listing:
    """Text to read or copy as it is, such as a recipe."""

    kind: ClassVar[str] = "listing"
    caption: str
    text: str


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to one question side by side, as `(who, answer, verdict)`; the verdict may be empty."""

    kind: ClassVar[str] = "answers"
    question: str
    answers: Sequence[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Fold:
    """Answers that are shown when they are asked for."""

    kind: ClassVar[str] = "fold"
    caption: str
    blocks: Sequence[Answers]


@dataclass(frozen=True, slots=True)
class Tree:
    """An ancestry: each line with its depth, as `(depth, URI, state, facts)`."""

    kind: ClassVar[str] = "tree"
    items: Sequence[tuple[int, str, str, str]]


Block = Text | Facts | Table | Bars | Heat | Figure | Commands | Listing | Answers | Fold | Tree


@dataclass(slots=True)
class Section:
    """A section of a page."""

    id: str
    title: str
    blocks: list[Block] = field(default_factory=list)

    def runs(self) -> list[tuple[str, list[Block]]]:
        """Blocks that follow one another and are of one kind, together: figures stand in a grid."""
        return [(kind, list(blocks)) for kind, blocks in groupby(self.blocks, key=lambda block: block.kind)]


@dataclass(frozen=True, slots=True)
class Browser:
    """What the data browser holds.

    Attributes:
        chunks: Rows as JSON lists, each compressed by zlib and written in base64.
        num_rows: Rows in the chunks.
        note: What people must know of them, such as that they are a sample.
        num_packed: Rows that the first epoch packs them into; 0: how they are packed is not told.
        capacity: Tokens of a packed row.
    """

    chunks: Sequence[str]
    num_rows: int
    note: str
    num_packed: int = 0
    capacity: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page.

    Attributes:
        title: Its heading.
        status: One line below it.
        sections: In order.
        browser: The data browser, or None.
        refresh_s: Seconds after which it reloads itself; None: never.
        badges: Short facts beside the title, such as the version.
    """

    title: str
    status: str
    sections: Sequence[Section]
    browser: Browser | None = None
    refresh_s: float | None = None
    badges: Mapping[str, str] = field(default_factory=dict)
