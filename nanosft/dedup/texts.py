"""Rows' texts as hashed words, without case, punctuation and layout, a batch at a time. Pure.

`hash_batch` finds the words that `nanosft.dedup.words.normalize_text` finds, but goes over a whole batch once: row by
row, this would be most of what a mixture costs.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from nanosft.dedup.words import (
    BORDER,
    ROW_END,
    Words,
    hash_lines,
    name_wordless,
    normalize_marked,
    normalize_words,
    to_offsets,
)
from nanosft.splitmix import GOLDEN, SPREAD, mix64

_TYPESET: Final = (("\u2019", "'"), *((sign, " ") for sign in "\u2014\u2013\u201c\u201d\u2018\u2026\u00a0"))
_SEAM: Final = f" {BORDER} "


def _fold(letter: int) -> int:
    """What a byte of UTF-8 becomes: lower case, a space for punctuation; those beyond ASCII are folded before."""
    marks = {ord(ROW_END): ord("\n"), ord(BORDER): ord("|")}
    sign = chr(letter)
    plain = sign if not sign.isascii() else sign.lower() if sign.isalnum() else " "
    return marks.get(letter, ord(plain))


_TABLE: Final = bytes(map(_fold, range(256)))


def join_messages(texts: Sequence[str]) -> str:
    """A row's messages as one text, for `hash_batch`."""
    joined = _SEAM.join(texts)
    if joined.count(BORDER) != len(texts) - 1 or ROW_END in joined:
        joined = _SEAM.join([text.replace(BORDER, " ").replace(ROW_END, " ") for text in texts])
    return joined


def hash_batch(rows: Sequence[str]) -> Words:
    """The words of rows (`join_messages`), `|` between messages counted as one."""
    texts = [_to_ascii(text) for text in rows]
    others = [place for place, text in enumerate(texts) if not text.isascii()]
    if others:
        normal = normalize_marked(ROW_END.join([texts[place] for place in others])).split(ROW_END)
        for place, text in zip(others, normal, strict=True):
            texts[place] = text
    words = hash_lines("".join([text + ROW_END for text in texts]).encode().translate(_TABLE, b"'"))
    wordless = _find_wordless(words)
    if wordless.any():
        named = [_name_wordless(rows[place]) for place in np.flatnonzero(wordless).tolist()]
        words = _replace_texts(words, wordless, hash_batch(named))
    return words


def _name_wordless(row: str) -> str:
    return _SEAM.join([text if normalize_words(text) else name_wordless(text) for text in row.split(_SEAM)])


def digest_texts(words: Words) -> npt.NDArray[np.uint64]:
    """128 bits of each text's words in their order: (texts, 2) uint64. Texts of the same words have the same."""
    hashes, starts = words
    places = np.arange(len(hashes)) - np.repeat(starts[:-1], np.diff(starts))
    result = np.empty((len(starts) - 1, 2), np.uint64)
    sums = np.zeros(len(hashes) + 1, np.uint64)
    with np.errstate(over="ignore"):
        keyed = mix64(hashes + places.astype(np.uint64) * GOLDEN)
        for column, values in enumerate((keyed, mix64(keyed * SPREAD))):
            np.cumsum(values, out=sums[1:])
            result[:, column] = sums[starts[1:]] - sums[starts[:-1]]
    return result


def drop_borders(words: Words) -> Words:
    """The words without the `|` between messages."""
    return _select(words, words.hashes != _border())


def _select(words: Words, kept: npt.NDArray[np.bool_]) -> Words:
    return Words(words.hashes[kept], to_offsets(kept)[words.starts])


def _replace_texts(words: Words, replaced: npt.NDArray[np.bool_], others: Words) -> Words:
    """The words with those of the replaced texts taken from `others`, one after the other."""
    sizes = np.diff(words.starts)
    kept = words.hashes[np.repeat(~replaced, sizes)]
    sizes[replaced] = np.diff(others.starts)
    is_new = np.repeat(replaced, sizes)
    hashes = np.empty(len(is_new), np.uint64)
    hashes[~is_new], hashes[is_new] = kept, others.hashes
    return Words(hashes, to_offsets(sizes))


@lru_cache
def _border() -> np.uint64:
    border: np.uint64 = hash_lines(b"|\n").hashes[0]
    return border


def _find_wordless(words: Words) -> npt.NDArray[np.bool_]:
    """Which rows have a message without a word: (rows,) bool."""
    hashes, starts = words
    # It shows as a border beside another, or at the begin or end of its row.
    is_border: npt.NDArray[np.bool_] = hashes == _border()
    is_edge = np.zeros(len(hashes) + 1, np.bool_)
    is_edge[starts] = True
    follows_border = np.concatenate([np.zeros(1, np.bool_), is_border])[:-1]
    lonely = is_border & (is_edge[:-1] | follows_border | is_edge[1:])
    found: npt.NDArray[np.bool_] = np.diff(starts) == 0
    found[np.searchsorted(starts, np.flatnonzero(lonely), side="right") - 1] = True
    return found


def _to_ascii(text: str) -> str:
    """The text with the common signs of typesetting as those that mean the same here; often ASCII then."""
    if not text.isascii():
        for sign, plain in _TYPESET:
            text = text.replace(sign, plain)
    return text
