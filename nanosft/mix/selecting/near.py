"""Near-duplicate pairs among any number of rows: keys are sorted partition by partition on disk, and pairs checked.

Every row has some keys (`nanosft.dedup.minhash`). Rows that share a key are candidates; their similarity is estimated
where the key alone does not prove it, and the pairs that hold are edges. A cluster is a connected component. Rows are
numbered in reading order, so clusters do not depend on how many processes work or how the keys are cut into partitions.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nanosft.dedup import EXACT_BIT, NUM_BINS, estimate_similarity
from nanosft.mix.disk import (
    NUM_PARTITIONS,
    SIG_BYTES,
    Places,
    measure_partitions,
    open_spilled,
    read_at,
    read_partitions,
    spill_path,
)
from nanosft.mix.tuning import Tuning

Rows = npt.NDArray[np.int64]

_MAX_PARTNERS: Final = 64
_MIN_PARTNERS: Final = 8
_KEY_PAIRS: Final = 4096
"""Pairs that one band key makes, about: up to 64 rows of it are all compared with each other, more rows with fewer
each, down to the first and the 8 before: those of a boilerplate are too many."""


def plan_partitions(directory: Path, tuning: Tuning) -> list[range]:
    """The partitions of the keys in ranges that can be sorted at once, as far as one partition can."""
    num_bytes = measure_partitions(directory, range(NUM_PARTITIONS))
    num_ranges = min(NUM_PARTITIONS, 1 + num_bytes // tuning.slice_bytes)
    bounds = [NUM_PARTITIONS * place // num_ranges for place in range(num_ranges + 1)]
    return [range(start, stop) for start, stop in pairwise(bounds)]


def find_edges(directory: Path, partitions: range, threshold: float, tuning: Tuning) -> npt.NDArray[np.uint32]:
    """The near duplicates that meet in some partitions of the keys: (edges, 2), distinct, without rows dropped before.

    Args:
        directory: The run's, with the spill of all processes.
        partitions: Below NUM_PARTITIONS.
        threshold: The least similarity of pairs that no edit key proves.
        tuning: How much is sorted, paired and checked at a time.
    """
    places = Places.load(directory)
    dropped = np.load(_dropped_path(directory))
    num_slices = 1 + measure_partitions(directory, partitions) // (2 * tuning.slice_bytes)
    found = [np.empty((0, 2), np.int64)]
    for which in range(num_slices):
        entries = read_partitions(directory, partitions, num_slices=num_slices, which=which)
        rows = places.base[entries["batch"]] + entries["row"]
        keys = entries["key"]
        if dropped.any():
            kept = dropped[rows >> 3] >> (rows & 7).astype(np.uint8) & 1 == 0
            keys, rows = keys[kept], rows[kept]
        for proven, doubtful in _iter_pairs(keys, rows, tuning.chunk_keys):
            holds = _check(directory, places, doubtful, threshold, tuning.chunk_pairs)
            found += [proven, doubtful[holds]]
    return _distinct(np.concatenate(found)).astype(np.uint32)


def save_dropped(directory: Path, num_rows: int, chunks: Iterator[Rows]) -> None:
    """Save which rows are dropped already, a bit each."""
    bits = np.zeros(num_rows // 8 + 1, np.uint8)
    for rows in chunks:
        np.bitwise_or.at(bits, rows >> 3, np.left_shift(1, rows & 7).astype(np.uint8))
    np.save(_dropped_path(directory), bits)


def _iter_pairs(keys: npt.NDArray[np.uint64], rows: Rows, chunk_keys: int) -> Iterator[tuple[Rows, Rows]]:
    """Pairs of rows that share keys, (pairs, 2) each: those that an edit key proves, and those still to be checked."""
    order = np.argsort(keys)
    keys, rows = keys[order], rows[order]
    same = np.concatenate([np.zeros(1, np.bool_), keys[1:] == keys[:-1]])[: len(keys)]
    shared = same | np.concatenate([same[1:], np.zeros(1, np.bool_)])[: len(keys)]  # the few that share a key at all
    keys, rows = keys[shared], rows[shared]
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    starts = np.flatnonzero(np.concatenate([np.ones(1, np.bool_), keys[1:] != keys[:-1]])[: len(keys)])
    sizes = np.diff(starts, append=len(keys))
    firsts = np.repeat(rows[starts], sizes)
    num_partners = np.repeat(np.clip(_KEY_PAIRS // sizes, _MIN_PARTNERS, _MAX_PARTNERS), sizes)
    for start in range(0, len(keys), chunk_keys):
        span = slice(max(0, start - _MAX_PARTNERS), start + chunk_keys)
        own, own_rows = keys[span], rows[span]
        is_doubtful = own & EXACT_BIT == 0
        pairs = [np.stack([firsts[span], own_rows], axis=1)[is_doubtful]]
        proven = np.empty((0, 2), np.int64)
        for distance in range(1, min(_MAX_PARTNERS, len(own) - 1) + 1):
            both = own[distance:] == own[:-distance]
            if not both.any():
                break
            found = np.stack([own_rows[:-distance], own_rows[distance:]], axis=1)
            pairs.append(found[both & is_doubtful[distance:] & (num_partners[span][distance:] >= distance)])
            if distance == 1:  # a chain: neighbours of one source stay neighbours where others are left out
                proven = found[both & ~is_doubtful[1:]]
        yield proven, _distinct(np.concatenate(pairs))


def _distinct(pairs: Rows) -> Rows:
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    numbers = np.unique(pairs[:, 0].astype(np.uint64) << np.uint64(32) | pairs[:, 1].astype(np.uint64))
    return np.stack([numbers >> np.uint64(32), numbers & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)


def _check(directory: Path, places: Places, pairs: Rows, threshold: float, chunk_pairs: int) -> npt.NDArray[np.bool_]:
    """Which pairs' estimated similarity is at least the threshold: (pairs,) bool."""
    holds = [np.empty(0, np.bool_)]
    with ExitStack() as stack:
        files: dict[int, int] = {}
        for start in range(0, len(pairs), chunk_pairs):
            rows, index = np.unique(pairs[start : start + chunk_pairs], return_inverse=True)
            batches = np.searchsorted(places.base, rows, side="right") - 1
            offsets = places.sigs_at[batches] + (rows - places.base[batches]) * SIG_BYTES
            processes = places.process[batches]
            for process in np.unique(processes).tolist():
                if process not in files:
                    files[process] = stack.enter_context(open_spilled(spill_path(directory, "sigs", process)))
            read = zip(processes.tolist(), offsets.tolist(), strict=True)
            data = b"".join([read_at(files[process], SIG_BYTES, offset) for process, offset in read])
            sigs = np.frombuffer(data, np.uint16).reshape(-1, NUM_BINS)
            first, second = index.reshape(-1, 2).T
            holds.append(estimate_similarity(sigs[first], sigs[second]) >= threshold)
    return np.concatenate(holds)


def _dropped_path(directory: Path) -> Path:
    return directory / "dropped.npy"
