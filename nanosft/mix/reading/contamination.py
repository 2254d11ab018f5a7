"""Held-out conversations as n-grams of words, and which rows repeat them. Pure but for saving and loading.

Words are compared without case and punctuation, across messages. A row is contaminated when one held-out conversation
has more than `max_overlap` of its n-grams in the row, or when more than that of the row's are in it.

Source: the n-gram rule of Brown et al., Language Models are Few-Shot Learners (2020), appendix C; the share of an
instance of Lambert et al., Tulu 3 (2024), section 3.2.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nanosft.dedup import Words, drop_borders, hash_batch
from nanosft.splitmix import GOLDEN, SPREAD, UInt64Array

_CHUNK_ROWS: Final = 2048
_SHIFT: Final = np.uint64(32)
_ARRAYS: Final = ("grams", "items", "sizes", "table")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """n-grams of held-out conversations; 20 to 28 bytes a word.

    Attributes:
        ngram: Words in an n-gram.
        max_overlap: See the module's docstring.
        grams: (G,) hashes, sorted.
        items: (G,) int32: whose they are.
        sizes: (items,) int32: distinct n-grams of each.
        table: (2**bits,) bool: whether any hash begins with these bits; tells most rows apart at the cost of one look.
    """

    ngram: int
    max_overlap: float
    grams: UInt64Array
    items: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int32]
    table: npt.NDArray[np.bool_]

    def find(self, words: Words) -> npt.NDArray[np.bool_]:
        """Which texts, their words given, are contaminated: (texts,) bool."""
        grams, rows = hash_ngrams(words, self.ngram)
        num_texts = len(words.starts) - 1
        found = np.zeros(num_texts, np.bool_)
        maybe = self.table[grams >> np.uint64(64 - self._bits)]
        all_grams, all_rows = grams, rows
        grams, rows = grams[maybe], rows[maybe]
        starts = np.searchsorted(self.grams, grams, side="left")
        stops = np.searchsorted(self.grams, grams, side="right")
        hits = stops > starts
        if not hits.any():
            return found
        for row in np.unique(rows[hits]).tolist():
            mine = np.flatnonzero((rows == row) & hits)
            _, first = np.unique(grams[mine], return_index=True)
            spans = [self.items[starts[i] : stops[i]] for i in mine[first]]
            items, counts = np.unique(np.concatenate(spans), return_counts=True)
            total = len(np.unique(all_grams[all_rows == row]))
            most = max((counts / self.sizes[items]).max(), counts.max() / total)
            found[row] = most > self.max_overlap
        return found

    @property
    def _bits(self) -> int:
        return len(self.table).bit_length() - 1

    def save(self, directory: Path) -> None:
        """Write the arrays for worker processes to map."""
        for name in _ARRAYS:
            np.save(directory / f"held-out-{name}.npy", getattr(self, name))


def load_held_out(directory: Path, ngram: int, max_overlap: float) -> HeldOut:
    """What `HeldOut.save` wrote, mapped and shared between processes."""
    arrays = [np.load(directory / f"held-out-{name}.npy", mmap_mode="r") for name in _ARRAYS]
    return HeldOut(ngram, max_overlap, *arrays)


def build_held_out(rows: Iterable[str], *, ngram: int, max_overlap: float) -> HeldOut:
    """Index held-out conversations, each as one text (`join_messages`)."""
    grams, items = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    num_items = 0
    left = iter(rows)
    while texts := list(islice(left, _CHUNK_ROWS)):
        hashes, rows = hash_ngrams(drop_borders(hash_batch(texts)), ngram)
        pairs = np.unique(np.stack([hashes, rows.astype(np.uint64)], axis=1), axis=0)
        grams.append(pairs[:, 0])
        items.append((pairs[:, 1] + np.uint64(num_items)).astype(np.int32))
        num_items += len(texts)
    all_grams, all_items = np.concatenate(grams), np.concatenate(items)
    order = np.argsort(all_grams, kind="stable")
    all_grams, all_items = all_grams[order], all_items[order]
    sizes = np.bincount(all_items, minlength=num_items).astype(np.int32)
    table = np.zeros(1 << max(10, (8 * len(all_grams)).bit_length()), np.bool_)
    table[all_grams >> np.uint64(64 - (len(table).bit_length() - 1))] = True
    return HeldOut(ngram, max_overlap, all_grams, all_items, sizes, table)


def hash_ngrams(texts: Words, ngram: int) -> tuple[UInt64Array, npt.NDArray[np.int64]]:
    """Hashes of all n-grams, and the text each is of; a text of fewer words is one n-gram, one without words none."""
    words, starts = texts
    lengths = np.diff(starts)
    short = np.flatnonzero((lengths > 0) & (lengths < ngram))
    hashes = [np.empty(0, np.uint64)]
    rows = [np.empty(0, np.int64)]
    if len(words) >= ngram:
        with np.errstate(over="ignore"):
            count = len(words) - ngram + 1
            sums = words[:count].copy()
            for place in range(1, ngram):
                sums = sums * GOLDEN + words[place : place + count]
        row_of = np.repeat(np.arange(len(lengths)), lengths)
        whole = row_of[:count] == row_of[ngram - 1 :]
        hashes.append(_finish(sums[whole]))
        rows.append(row_of[:count][whole])
    for row in short.tolist():
        with np.errstate(over="ignore"):
            total = np.uint64(lengths[row])
            for word in words[starts[row] : starts[row + 1]]:
                total = total * GOLDEN + word
        hashes.append(_finish(np.array([total], np.uint64)))
        rows.append(np.array([row]))
    return np.concatenate(hashes), np.concatenate(rows)


def _finish(sums: UInt64Array) -> UInt64Array:
    with np.errstate(over="ignore"):
        mixed = (sums ^ (sums >> _SHIFT)) * SPREAD
        return mixed ^ (mixed >> _SHIFT)
