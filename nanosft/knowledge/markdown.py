"""Markdown as a flat list of blocks of plain text. Pure.

CommonMark and tables, by markdown-it; code blocks, HTML and images hold no statements and are left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

BlockKind = Literal["heading", "bullet", "paragraph", "row"]


@dataclass(frozen=True, slots=True)
class MarkdownBlock:
    """A heading, a list item's own text, a paragraph, or a table row.

    Attributes:
        kind: What it is.
        text: Plain text on one line, without markup; code spans keep their words.
        level: A heading's level, 1 to 6; else 0.
    """

    kind: BlockKind
    text: str
    level: int = 0


def parse_blocks(text: str) -> Iterator[MarkdownBlock]:
    """Yield the blocks of a Markdown text in order, empty ones left out."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    header: list[str] = []
    row: list[str] = []
    list_depth = 0
    for position, token in enumerate(tokens):
        if token.type == "list_item_open":
            list_depth += 1
        elif token.type == "list_item_close":
            list_depth -= 1
        elif token.type == "tr_close":
            in_head = tokens[position + 1].type == "thead_close"
            if in_head:
                header = row
            elif any(row):
                yield _row_block(header, row)
            row = []
        elif token.type == "inline":
            opener = tokens[position - 1]
            plain = _plain(token.children or [])
            if opener.type in {"th_open", "td_open"}:
                row.append(plain)
            elif plain:
                yield _text_block(opener, plain, in_list=list_depth > 0)


def _text_block(opener: Token, plain: str, *, in_list: bool) -> MarkdownBlock:
    if opener.type == "heading_open":
        return MarkdownBlock("heading", plain, int(opener.tag[1:]))
    return MarkdownBlock("bullet" if in_list else "paragraph", plain)


def _row_block(header: Sequence[str], row: Sequence[str]) -> MarkdownBlock:
    """A table row as one statement: `d20: parameters 561M, cost $100.`."""
    first, *rest = row
    values = [
        f"{key} {cell}".strip() for key, cell in zip(header[1:], rest, strict=False) if cell.strip("-\u2013\u2014 ")
    ]
    text = f"{first}: {', '.join(values)}." if first and values else f"{first or ', '.join(values)}."
    return MarkdownBlock("row", text)


def _plain(children: Sequence[Token]) -> str:
    """The text of inline tokens."""
    pieces: list[str] = []
    for token in children:
        if token.type in {"text", "code_inline"}:
            pieces.append(token.content)
        elif token.type in {"softbreak", "hardbreak"}:
            pieces.append(" ")
    return " ".join("".join(pieces).split())
