"""Near-duplicates among conversations that come one after another, in memory that a shard can afford.

    index = NearDuplicateIndex()
    text = normalize_text(conversation)
    place = index.query(text)       # of the first one added that it nearly equals, or None
    if place is None:
        index.add(text)

About 0.6 KB a row: signatures in one array, keys in sorted runs that double in size (a log-structured merge), and
while the largest run is merged, up to 0.35 KB a row more.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from nanosft.dedup.minhash import (
    DEFAULT_THRESHOLD,
    EXACT_BIT,
    NUM_BINS,
    UInt16Array,
    estimate_similarity,
    make_keys,
    minhash_words,
)
from nanosft.dedup.texts import hash_batch
from nanosft.dedup.words import hash_words
from nanosft.splitmix import UInt64Array

_BUFFER_KEYS: Final = 4096


class NearDuplicateIndex:
    """Normalized texts seen so far, asked for near-duplicates of another.

    Args:
        threshold: Jaccard similarity of word pairs from which two long texts are near-duplicates.
    """

    def __init__(self, threshold: float = DEFAULT_THRESHOLD) -> None:
        self._threshold = threshold
        self._signatures: UInt16Array = np.empty((64, NUM_BINS), np.uint16)
        self._num_rows = 0
        self._recent: dict[int, list[int]] = {}
        self._num_recent = 0
        self._runs: list[tuple[UInt64Array, np.ndarray[tuple[int], np.dtype[np.int32]]]] = []
        self._removed: set[int] = set()

    def __len__(self) -> int:
        return self._num_rows

    def query(self, text: str) -> int | None:
        """The place of the first text added that `text` nearly equals, or None."""
        sig, keys = self._sign(text)
        return self._find(sig, keys)

    def add(self, text: str) -> int:
        """Add a text; returns its place, counted from 0."""
        sig, keys = self._sign(text)
        return self._insert(sig, keys)

    def find_or_add(self, text: str) -> int | None:
        """The place of the first near-duplicate; without one, None, and the text is added."""
        sig, keys = self._sign(text)
        found = self._find(sig, keys)
        if found is None:
            self._insert(sig, keys)
        return found

    def find_or_add_all(self, texts: Sequence[str]) -> list[int | None]:
        """`find_or_add` of each text in turn, with the same result; signing them together takes a third of the time."""
        words = hash_words(texts)
        sigs = minhash_words(words)
        rows, keys = make_keys(words, sigs, threshold=self._threshold)
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], np.arange(len(texts) + 1))
        places: list[int | None] = []
        for row, sig in enumerate(sigs):
            own_keys = keys[order[bounds[row] : bounds[row + 1]]]
            found = self._find(sig, own_keys)
            if found is None:
                self._insert(sig, own_keys)
            places.append(found)
        return places

    def add_all(self, rows: Sequence[str]) -> None:
        """`add` of each row in turn, given as `join_messages` makes it: a tenth of the time."""
        words = hash_batch(rows)
        sigs = minhash_words(words)
        texts, keys = make_keys(words, sigs, threshold=self._threshold)
        first, stop = self._num_rows, self._num_rows + len(sigs)
        if stop > len(self._signatures):
            grown = np.empty((max(stop, 2 * len(self._signatures)), NUM_BINS), np.uint16)
            grown[:first] = self._signatures[:first]
            self._signatures = grown
        self._signatures[first:stop] = sigs
        self._num_rows = stop
        self._add_run(keys, (texts + first).astype(np.int32))

    def remove(self, place: int) -> None:
        """Forget a text: nothing is a near-duplicate of it any more. Its place stays taken."""
        self._removed.add(place)

    def _sign(self, text: str) -> tuple[UInt16Array, UInt64Array]:
        words = hash_words([text])
        sigs = minhash_words(words)
        return sigs[0], make_keys(words, sigs, threshold=self._threshold).keys

    def _find(self, sig: UInt16Array, keys: UInt64Array) -> int | None:
        exact: list[int] = []
        candidates: list[int] = []
        for key in keys.tolist():
            (exact if key & int(EXACT_BIT) else candidates).extend(self._recent.get(key, ()))
        for run_keys, run_rows in self._runs:
            starts = np.searchsorted(run_keys, keys, side="left")
            stops = np.searchsorted(run_keys, keys, side="right")
            for hit in np.flatnonzero(stops > starts).tolist():
                target = exact if keys[hit] & EXACT_BIT else candidates
                target.extend(run_rows[starts[hit] : stops[hit]].tolist())
        if candidates:
            rows = np.unique(np.array(candidates))
            close = rows[estimate_similarity(self._signatures[rows], sig) >= self._threshold]
            exact.extend(close.tolist() if self._removed else close[:1].tolist())
        return min((place for place in exact if place not in self._removed), default=None)

    def _insert(self, sig: UInt16Array, keys: UInt64Array) -> int:
        place = self._num_rows
        if place == len(self._signatures):
            grown = np.empty((place * 2, NUM_BINS), np.uint16)
            grown[:place] = self._signatures
            self._signatures = grown
        self._signatures[place] = sig
        self._num_rows += 1
        for key in keys.tolist():
            self._recent.setdefault(key, []).append(place)
        self._num_recent += len(keys)
        if self._num_recent >= _BUFFER_KEYS:
            self._seal()
        return place

    def _seal(self) -> None:
        """Turn the recent keys into a sorted run."""
        pairs = [(key, row) for key, rows in self._recent.items() for row in rows]
        self._recent, self._num_recent = {}, 0
        self._add_run(np.array([key for key, _ in pairs], np.uint64), np.array([row for _, row in pairs], np.int32))

    def _add_run(self, keys: UInt64Array, rows: np.ndarray[tuple[int], np.dtype[np.int32]]) -> None:
        """Add a sorted run, and merge runs until each is at least twice as long as the next."""
        while self._runs and len(self._runs[-1][0]) < 2 * len(keys):
            last_keys, last_rows = self._runs.pop()
            keys = np.concatenate([last_keys, keys])
            del last_keys  # here and below: what is merged is let go before the next copy is made
            rows = np.concatenate([last_rows, rows])
            del last_rows
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        rows = rows[order]
        self._runs.append((keys, rows))
