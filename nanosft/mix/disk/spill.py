"""What lies on the local disk between reading and writing: rows, signatures and keys of each process, and their places.

Every process appends to files of its own, so none waits for another; `Places` tells of each batch whose files it is in
and from where on. Rows are numbered in reading order, whichever process read them.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from nanosft.dedup import NUM_BINS, Keys, to_offsets

ENTRY: Final = np.dtype([("key", "<u8"), ("batch", "<u4"), ("row", "<u4")])
"""A key, and the row that has it, counted from 0 in its batch."""
NUM_PARTITIONS: Final = 256
SIG_BYTES: Final = NUM_BINS * 2

_PLACE: Final = np.dtype([("process", "<u4"), ("base", "<u8"), ("rows_at", "<u8"), ("sigs_at", "<u8")])


class Spill:
    """The files that one process writes. Keys are sorted into NUM_PARTITIONS partitions, a run at a time.

    Args:
        directory: The run's.
        number: The process's.
        num_sorted: Keys that are sorted at a time.
    """

    def __init__(self, directory: Path, number: int, num_sorted: int) -> None:
        self._num_sorted = num_sorted
        self.number = number
        self._directory = directory
        self._waiting: list[npt.NDArray[Any]] = []
        self._num_waiting = 0
        self._runs: list[npt.NDArray[np.int64]] = []

    def add_rows(self, lines: Sequence[bytes]) -> int:
        """Append rows; returns where the first is."""
        return self._append("rows", b"".join(lines))

    def add_keys(self, batch: int, keys: Keys, sigs: npt.NDArray[np.uint16]) -> int:
        """Append a batch's keys, and the signatures of all its rows; returns where the first signature is."""
        entries = np.empty(len(keys.keys), ENTRY)
        entries["key"], entries["batch"], entries["row"] = keys.keys, batch, keys.rows
        self._waiting.append(entries)
        self._num_waiting += len(entries)
        if self._num_waiting >= self._num_sorted:
            self._flush()
        return self._append("sigs", sigs.tobytes())

    def finish(self) -> None:
        """Write what waits; nothing comes after it."""
        self._flush()
        if self._runs:
            np.save(self._directory / f"runs-{self.number}.npy", np.stack(self._runs))

    def _flush(self) -> None:
        if not self._num_waiting:
            return
        entries = np.concatenate(self._waiting)
        self._waiting, self._num_waiting = [], 0
        # Low bits: the high one tells edit keys from band keys, which are not equally many.
        partition = (entries["key"] & np.uint64(NUM_PARTITIONS - 1)).astype(np.uint8)
        start = self._append("keys", entries[np.argsort(partition, kind="stable")].tobytes())
        self._runs.append(start + to_offsets(np.bincount(partition, minlength=NUM_PARTITIONS)) * ENTRY.itemsize)

    def _append(self, name: str, data: bytes) -> int:
        with spill_path(self._directory, name, self.number).open("ab") as file:
            start = file.tell()
            file.write(data)
        return start


@dataclass(frozen=True, slots=True)
class Places:
    """Where each batch is, by its number; some arrays of (batches,).

    Attributes:
        process: Whose files it is in.
        base: Number of its first row among all rows.
        rows_at: Where its rows begin, in bytes.
        sigs_at: Where its signatures begin, in bytes.
    """

    process: npt.NDArray[np.int64]
    base: npt.NDArray[np.int64]
    rows_at: npt.NDArray[np.int64]
    sigs_at: npt.NDArray[np.int64]

    @classmethod
    def load(cls, directory: Path) -> Self:
        """What `save_places` saved."""
        table = np.load(_places_path(directory))
        return cls(*(table[name].astype(np.int64) for name in _PLACE.names or ()))


def save_places(directory: Path, rows: Sequence[tuple[int, int, int, int]]) -> None:
    """Save process, base, rows_at and sigs_at of each batch."""
    np.save(_places_path(directory), np.array(rows, _PLACE))


def read_partitions(directory: Path, partitions: range, *, num_slices: int, which: int) -> npt.NDArray[Any]:
    """One of `num_slices` equal slices of some partitions' entries, those of a key all in the same: `ENTRY`."""
    found = [np.empty(0, ENTRY)]
    for runs, file in _iter_runs(directory):
        for start, stop in runs[:, [partitions.start, partitions.stop]].tolist():
            entries = np.frombuffer(read_at(file, stop - start, start), ENTRY)
            if num_slices > 1:
                entries = entries[entries["key"] // np.uint64(NUM_PARTITIONS) % np.uint64(num_slices) == which]
            found.append(entries)
    return np.concatenate(found)


def measure_partitions(directory: Path, partitions: range) -> int:
    """Bytes of some partitions' entries."""
    return sum(int((runs[:, partitions.stop] - runs[:, partitions.start]).sum()) for runs, _ in _iter_runs(directory))


def _iter_runs(directory: Path) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
    for path in sorted(directory.glob("runs-*.npy")):
        with open_spilled(spill_path(directory, "keys", int(path.stem.partition("-")[2]))) as file:
            yield np.load(path), file


def spill_path(directory: Path, name: str, process: int) -> Path:
    """Where a process's `rows`, `sigs` or `keys` are."""
    return directory / f"{name}-{process}"


@contextmanager
def open_spilled(path: Path) -> Iterator[int]:
    """A file's descriptor, for `read_at`."""
    file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)


def read_at(file: int, size: int, start: int) -> bytes:
    """`size` bytes from `start` on, all of them: one call reads 2 GiB at most."""
    data = os.pread(file, size, start)
    while len(data) < size:
        more = os.pread(file, size - len(data), start + len(data))
        assert more, "a spill file is shorter than its places say"
        data += more
    return data


def _places_path(directory: Path) -> Path:
    return directory / "places.npy"
