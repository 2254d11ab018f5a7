"""Rows' texts without case, punctuation and layout, a batch at a time. Pure.

`normalize_batch` gives what `nanosft.quality.words.normalize_text` does, but goes over plain ASCII once for a whole
batch: word by word, this would be most of what a mixture costs.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from nanosft.quality.words import normalize_words

_ROW_END, _BORDER, _SPACE = b"\x1e", b"\x1f", ord(" ")
_TYPESET: Final = (("\u2019", "'"), *((sign, " ") for sign in "\u2014\u2013\u201c\u201d\u2018\u2026\u00a0"))
_FOLD: Final = bytes(c if chr(c).isalnum() and chr(c).isascii() else _SPACE for c in range(256)).lower()
_TABLE: Final = _FOLD[:0x1E] + b"\n|" + _FOLD[0x20:]


def normalize_batch(rows: Sequence[Sequence[str]]) -> list[str | None]:
    """Each row's words in lower case, ` | ` between its messages; None where a message has no word.

    A message without one (a picture made of signs, "?!") would equal any other, so its row is better compared as it is.

    Args:
        rows: Texts of the messages of each row.
    """
    whole = [_to_ascii(" \x1f ".join(texts)) for texts in rows]
    is_plain = [text.isascii() for text in whole]
    data = "\x1e".join([text for text, plain in zip(whole, is_plain, strict=True) if plain]).encode()
    num_borders = sum(len(texts) - 1 for texts, plain in zip(rows, is_plain, strict=True) if plain)
    if data.count(_BORDER) != num_borders or data.count(_ROW_END) != max(sum(is_plain) - 1, 0):
        return [_normalize(texts) for texts in rows]  # a text holds one of the two signs
    plain_rows = iter(_collapse(data.translate(_TABLE, b"'")).decode().split("\n"))
    return [
        _check(next(plain_rows)) if plain else _normalize(texts) for texts, plain in zip(rows, is_plain, strict=True)
    ]


def _to_ascii(text: str) -> str:
    """The text with the common signs of typesetting as those that mean the same here; often ASCII then."""
    if not text.isascii():
        for sign, plain in _TYPESET:
            text = text.replace(sign, plain)
    return text


def _collapse(data: bytes) -> bytes:
    """Without the spaces that follow another or begin a line, and without those that end one."""
    letters = np.frombuffer(b"\n" + data, np.uint8)
    is_white = letters <= _SPACE
    keep = ~(is_white[:-1] & (letters[1:] == _SPACE))
    kept: bytes = letters[1:][keep].tobytes()
    return kept.replace(b" \n", b"\n").rstrip(b" ")


def _check(text: str) -> str | None:
    return None if not text or "| |" in text or text[0] == "|" or text[-1] == "|" else text


def _normalize(texts: Sequence[str]) -> str | None:
    pieces = [normalize_words(text) for text in texts]
    return " | ".join(pieces) if all(pieces) else None
