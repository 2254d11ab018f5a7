"""Words: their normal form, by which texts are compared, and their hashes. Pure.

Case, punctuation, width and white space do not count. All arithmetic is integer and modulo 2**64, so that every process
and platform gets the same hashes.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from nanosft.conversation import Conversation

UInt64Array = npt.NDArray[np.uint64]

GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio: an odd factor that spreads neighbours."""

_HASHED_CHARS: Final = 1 << 16
# Scripts written without spaces count by the character: Thai, kana, Han.
_UNSPACED: Final = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# Apostrophes and invisible characters vanish; Turkish i without or with its dot is i, as upper case cannot tell them.
_NORMAL: Final = str.maketrans(
    {**dict.fromkeys("'\u2019\u02bc\u00ad\u200b\u200c\u200d\u2060\ufeff"), "\u0131": "i", "\u0130": "i"}
)
_ASCII_FOLD: Final = bytes(c if chr(c).isalnum() and c < 128 else 32 for c in range(256)).lower()  # noqa: PLR2004

_ASCII_FOLD_LINES: Final = bytes(10 if c == 10 else folded for c, folded in enumerate(_ASCII_FOLD))  # noqa: PLR2004


def normalize_text(conversation: Conversation) -> str:
    """The conversation's words in lower case, a space between them and ` | ` between messages."""
    return " | ".join([normalize_words(message.text) for message in conversation.messages])


def normalize_words(text: str) -> str:
    """The text's words in lower case with one space between them; apostrophes vanish, other punctuation divides."""
    if text.isascii():
        folded = text.encode().translate(_ASCII_FOLD, b"'")
        return b" ".join(folded.split()).decode()
    return " ".join(_word().findall(unicodedata.normalize("NFKC", text).translate(_NORMAL).casefold()))


def normalize_each(sentences: Sequence[str]) -> list[str]:
    """`normalize_words` of each of some sentences without line ends, in a third of the time of one by one."""
    text = "\n".join(sentences)
    if not sentences or not text.isascii():
        return [normalize_words(sentence) for sentence in sentences]
    folded = text.encode().translate(_ASCII_FOLD_LINES, b"'").decode()
    return [" ".join(line.split()) for line in folded.split("\n")]


def hash_words(texts: Sequence[str]) -> tuple[UInt64Array, npt.NDArray[np.int64]]:
    """Hash each word of normalized texts.

    Returns:
        The hashes (W,) uint64 of all words in order, and where each text's begin: (len(texts) + 1,) int64 offsets.
    """
    hashes, counts = [np.empty(0, np.uint64)], [np.zeros(1, np.int64)]
    first = num_chars = 0
    for place, text in enumerate(texts, 1):
        num_chars += len(text)
        if num_chars >= _HASHED_CHARS or place == len(texts):
            found, ends = _hash_words(texts[first:place])
            hashes.append(found)
            counts.append(ends + counts[-1][-1])
            first, num_chars = place, 0
    return np.concatenate(hashes), np.concatenate(counts)


def _hash_words(texts: Sequence[str]) -> tuple[UInt64Array, npt.NDArray[np.int64]]:
    """The hashes of the words of a few texts, and where each text's end.

    A word's hash is the sum of its letters' numbers, each times a power of an odd base, modulo 2**64. The powers go on
    from word to word and are taken back by the inverse base at the end: no letter's place in its word is needed.
    """
    data = np.frombuffer(("\n" + "\n".join(texts) + "\n").encode(), np.uint8)
    is_word = data > ord(" ")
    begins = np.flatnonzero(is_word[1:] & ~is_word[:-1]) + 1
    ends = np.searchsorted(begins, np.flatnonzero(data == ord("\n"))[1:])
    if not len(begins):
        return np.empty(0, np.uint64), ends
    powers, inverses = _powers(1 << len(data).bit_length())
    with np.errstate(over="ignore"):
        letters = _letters().take(data)
        letters *= powers[: len(data)]
        return mix(np.add.reduceat(letters, begins) * inverses[begins]), ends


@lru_cache(maxsize=4)
def _powers(count: int) -> tuple[UInt64Array, UInt64Array]:
    """The first `count` powers of an odd base and of its inverse, modulo 2**64; `count` is a power of two."""
    base = int(GOLDEN)
    tables = []
    for factor in (base, pow(base, -1, 1 << 64)):
        table = np.ones(count, np.uint64)
        with np.errstate(over="ignore"):
            for bit in range(count.bit_length() - 1):
                table[1 << bit : 2 << bit] = table[: 1 << bit] * np.uint64(pow(factor, 1 << bit, 1 << 64))
        tables.append(table)
    return tables[0], tables[1]


@lru_cache(maxsize=1)
def _letters() -> UInt64Array:
    """A number for each byte, 0 for white space."""
    table = random_words(256, seed=1).copy()
    table[: ord(" ") + 1] = 0
    return table


@lru_cache(maxsize=1)
def _word() -> re.Pattern[str]:
    """A word: letters and digits with their marks, or one character of an unspaced script with its marks.

    Made when the first text beyond ASCII comes: the marks (category M) have to be listed. Those beyond the
    basic plane are left out: with them the pattern is ten times as slow.
    """
    marks = "".join(chr(point) for point in range(0x300, 0x10000) if unicodedata.category(chr(point)).startswith("M"))
    return re.compile(rf"[{_UNSPACED}][{marks}]*|[^\W_{_UNSPACED}]+(?:[{marks}]+[^\W_{_UNSPACED}]*)*")


def mix(values: UInt64Array) -> UInt64Array:
    """Finalizer of SplitMix64 (Steele, Lea, Flood, 2014): a bijection in which each bit depends on all."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


@cache
def random_words(count: int, *, seed: int) -> UInt64Array:
    """`count` fixed odd uint64, the SplitMix64 stream of the seed."""
    with np.errstate(over="ignore"):
        steps = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 32)
        return mix(steps * GOLDEN) | np.uint64(1)
