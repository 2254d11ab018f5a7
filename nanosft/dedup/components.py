"""Connected components of more rows than memory is meant to hold: the clusters that pairs of near-duplicates make."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


class Components:
    """Connected components of row numbers; the smallest row of each is its name.

    Four bytes a row in a file, of which only a limited part stays in memory.

    Args:
        path: The file.
        num_rows: Rows are below it.
        resident_bytes: How large the file may be and stay in memory.
        chunk_rows: Rows that are written and followed at a time.
        chunk_pairs: Pairs that are united at a time.
    """

    def __init__(
        self,
        path: Path,
        num_rows: int,
        *,
        resident_bytes: int = 64 << 20,
        chunk_rows: int = 1 << 18,
        chunk_pairs: int = 1 << 13,
    ) -> None:
        self._num_rows = num_rows
        self._resident_bytes = resident_bytes
        self._chunk_rows = chunk_rows
        self._chunk_pairs = chunk_pairs
        with path.open("wb+") as file:
            for start, stop in self._spans():
                file.write(np.arange(start, stop, dtype=np.uint32).data)
            file.flush()
            self._map = mmap.mmap(file.fileno(), 0)

    def unite(self, pairs: npt.NDArray[Any]) -> None:
        """Join the components of the two rows of each pair: (pairs, 2)."""
        with memoryview(self._map) as view, view.cast("I") as parent:
            for start in range(0, len(pairs), self._chunk_pairs):
                chunk = pairs[start : start + self._chunk_pairs].astype(np.int64)
                parents = np.frombuffer(parent, np.uint32)[chunk]
                for first, second in chunk[parents[:, 0] != parents[:, 1]].tolist():
                    a, b = first, second
                    while parent[a] != a:
                        parent[a] = a = parent[parent[a]]
                    while parent[b] != b:
                        parent[b] = b = parent[parent[b]]
                    parent[max(a, b)] = min(a, b)
                self._release()

    def iter_members(self) -> Iterator[tuple[Rows, Rows]]:
        """Chunks of the rows that are not their component's name: their numbers, and the names."""
        for start, stop in self._spans():
            with memoryview(self._map) as view, view.cast("I") as parent:
                rows, found = _follow(np.frombuffer(parent, np.uint32), start, stop)
            self._release()
            if len(rows):
                yield rows, found.astype(np.int64)

    def close(self) -> None:
        """Release the file."""
        self._map.close()

    def _spans(self) -> Iterator[tuple[int, int]]:
        for start in range(0, self._num_rows, self._chunk_rows):
            yield start, min(start + self._chunk_rows, self._num_rows)

    def _release(self) -> None:
        """Give memory back; what was written stays in the file."""
        if len(self._map) > self._resident_bytes:
            self._map.madvise(mmap.MADV_DONTNEED)


def _follow(parent: npt.NDArray[np.uint32], start: int, stop: int) -> tuple[Rows, npt.NDArray[np.uint32]]:
    """The rows of a range that are not their component's name, and the names; their paths are one step long then."""
    rows = np.arange(start, stop)
    rows = rows[parent[rows] != rows]
    found = parent[rows]
    while not np.array_equal(above := parent[found], found):
        found = above
    parent[rows] = found
    return rows, found
