"""Near-duplicate clusters of any number of rows: keys sorted part by part on disk, pairs checked, pairs united.

Every row has some keys (`nanosft.quality.minhash`). Rows that share a key are candidates; each is paired with the first
row of that key, the pair's similarity is estimated where the key alone does not prove it, and the pairs that hold are
edges. A cluster is a connected component. Rows are numbered in reading order, so clusters do not depend on how many
processes work or how the keys are cut into parts.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from nanosft.quality.minhash import EXACT_BIT, NUM_BINS, estimate_similarity
from nanosft.quality.words import UInt64Array

PAIR: Final = np.dtype([("row", "<u4"), ("first", "<u4"), ("proven", "?")])
_ENTRY: Final = np.dtype([("key", "<u8"), ("row", "<u4")])
_NUM_PARTS: Final = 256
_BUFFER_ENTRIES: Final = 1 << 18
_SIG_BYTES: Final = NUM_BINS * 2


class KeyFiles:
    """Keys and signatures of all rows, on disk.

    Args:
        directory: Where to keep them.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._parts = [(directory / f"keys-{part:03d}").open("wb", buffering=0) for part in range(_NUM_PARTS)]
        self._signatures = signature_path(directory).open("wb", buffering=1 << 20)
        self._waiting: list[npt.NDArray[Any]] = []
        self._num_waiting = 0

    def add(self, base: int, rows: npt.NDArray[np.int64], keys: UInt64Array, sigs: npt.NDArray[np.uint16]) -> None:
        """Add a batch.

        Args:
            base: Number of its first row.
            rows: For each key its row, counted from 0 in the batch.
            keys: The keys.
            sigs: (rows of the batch, NUM_BINS).
        """
        entries = np.empty(len(keys), _ENTRY)
        entries["key"], entries["row"] = keys, rows + base
        self._signatures.write(sigs.tobytes())
        self._waiting.append(entries)
        self._num_waiting += len(entries)
        if self._num_waiting >= _BUFFER_ENTRIES:
            self._flush()

    def _flush(self) -> None:
        entries = np.concatenate([np.empty(0, _ENTRY), *self._waiting])
        self._waiting, self._num_waiting = [], 0
        # Low bits: the high one tells edit keys from band keys, which are not equally many.
        part = (entries["key"] & np.uint64(_NUM_PARTS - 1)).astype(np.uint8)
        entries = entries[np.argsort(part, kind="stable")]
        ends = np.cumsum(np.bincount(part, minlength=_NUM_PARTS)).tolist()
        for index, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            if end > start:
                self._parts[index].write(entries[start:end].data)

    def close(self) -> list[Path]:
        """Finish writing; returns the files of keys that are not empty."""
        self._flush()
        for file in (*self._parts, self._signatures):
            file.close()
        return [path for path in sorted(self._directory.glob("keys-*")) if path.stat().st_size]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        for file in (*self._parts, self._signatures):
            file.close()


def signature_path(directory: Path) -> Path:
    """Where the signatures are, one after the other in the order of rows."""
    return directory / "signatures"


def find_candidates(path: Path) -> npt.NDArray[Any]:
    """The pairs of one file of keys: each row with the first of its key. `PAIR`, distinct, `proven` by an edit key."""
    entries = np.fromfile(path, _ENTRY)
    path.unlink()
    entries = entries[np.lexsort((entries["row"], entries["key"]))]
    key, row = entries["key"], entries["row"]
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    first = np.repeat(row[starts], np.diff(starts, append=len(key)))
    shared = row != first
    pairs = np.empty(int(shared.sum()), PAIR)
    pairs["row"], pairs["first"] = row[shared], first[shared]
    pairs["proven"] = (key[shared] & EXACT_BIT) != 0
    return np.unique(pairs)


def check_pairs(path: Path, pairs: npt.NDArray[Any], threshold: float) -> npt.NDArray[Any]:
    """Those of the pairs that are proven, or whose estimated similarity is at least the threshold.

    Args:
        path: The signatures' file.
        pairs: `PAIR`.
        threshold: The least similarity.
    """
    doubtful = np.flatnonzero(~pairs["proven"])
    holds = pairs["proven"].copy()
    file = os.open(path, os.O_RDONLY)
    try:
        sides = [
            b"".join([os.pread(file, _SIG_BYTES, row * _SIG_BYTES) for row in pairs[name][doubtful].tolist()])
            for name in ("row", "first")
        ]
    finally:
        os.close(file)
    rows, firsts = (np.frombuffer(side, np.uint16).reshape(-1, NUM_BINS) for side in sides)
    holds[doubtful] = estimate_similarity(rows, firsts) >= threshold
    held: npt.NDArray[Any] = pairs[holds]
    return held


class Components:
    """Connected components of row numbers; the smallest row of each is its name.

    Four bytes a row in a file, so that only what is in use takes memory.

    Args:
        path: The file.
        num_rows: Rows are below it.
    """

    def __init__(self, path: Path, num_rows: int) -> None:
        with path.open("wb+") as file:
            for start in range(0, num_rows, 1 << 20):
                file.write(np.arange(start, min(start + (1 << 20), num_rows), dtype=np.uint32).data)
            file.flush()
            self._map = mmap.mmap(file.fileno(), 0)
        self._view = memoryview(self._map)
        self._parent = self._view.cast("I")

    def unite(self, rows: list[int], others: list[int]) -> None:
        """Join the components of each row and the other beside it."""
        parent = self._parent
        for first, second in zip(rows, others, strict=True):
            a, b = first, second
            while parent[a] != a:
                parent[a] = a = parent[parent[a]]
            while parent[b] != b:
                parent[b] = b = parent[parent[b]]
            if a < b:
                parent[b] = a
            else:
                parent[a] = b

    def find(self, rows: list[int]) -> Iterator[int]:
        """The component of each row."""
        parent = self._parent
        for row in rows:
            place = row
            while parent[place] != place:
                parent[place] = place = parent[parent[place]]
            yield place

    def close(self) -> None:
        """Release the file."""
        self._parent.release()
        self._view.release()
        self._map.close()
