"""Packing: how much of a conversation a row takes, and which ones share it. Pure functions.

Conversations are shuffled with (seed, epoch), cut into windows, and each window is packed by decreasing best fit: the
longest conversation first, always into the fullest row that still has room. The rows are shuffled again. A window
that holds the whole data set pads least; a smaller one mixes rows of all lengths more evenly and costs little padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from nanosft.splitmix import GOLDEN, mix64

IntArray = npt.NDArray[np.int64]

DEFAULT_WINDOW: Final = 16_384
"""Conversations packed together; beyond this the padding no longer falls measurably."""


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows of whole conversations.

    Attributes:
        items: (num_items,) conversation indices, row after row.
        offsets: (num_rows + 1,); row r holds `items[offsets[r]:offsets[r + 1]]`.
    """

    items: IntArray
    offsets: IntArray

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    def row(self, index: int) -> IntArray:
        """The conversations of one row, in their order."""
        return self.items[self.offsets[index] : self.offsets[index + 1]]

    def take(self, order: IntArray) -> "PackedRows":
        """The rows of `order` (num_taken,), in that order."""
        return from_rows([self.row(int(index)) for index in order])


def from_rows(rows: list[IntArray]) -> PackedRows:
    """Rows given one by one."""
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return PackedRows(np.concatenate(rows) if rows else np.zeros(0, np.int64), offsets)


def fit_turns(ids: Sequence[int], capacity: int, end_id: int) -> int:
    """Tokens of the leading turns that a row holds: all, or up to the last end of an answer that fits; 0: none does.

    Args:
        ids: A rendered conversation.
        capacity: Tokens of a row.
        end_id: The token that ends an answer.
    """
    if len(ids) <= capacity:
        return len(ids)
    return next((place + 1 for place in range(capacity - 1, -1, -1) if ids[place] == end_id), 0)


def shuffle_order(num: int, *key: int) -> IntArray:
    """A permutation of `range(num)` that depends on `key` alone, on no library's random stream.

    Indices are sorted by a keyed 64-bit hash (the finalizer of SplitMix64), so a plan made under one version of NumPy
    is the same under another.
    """
    state = GOLDEN
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is what a hash wants
        for part in key:
            state = mix64(np.array([state ^ np.uint64(part % 2**64)], np.uint64) + GOLDEN)[0]
        hashes = mix64(np.arange(num, dtype=np.uint64) + state + GOLDEN)
    return np.argsort(hashes, kind="stable")


def pack_epoch(lengths: IntArray, capacity: int, *, seed: int, epoch: int, window: int = DEFAULT_WINDOW) -> PackedRows:
    """Every conversation once, in shuffled rows of at most `capacity` tokens.

    Args:
        lengths: (num_conversations,) tokens of each; none above `capacity`.
        capacity: Tokens of a row.
        seed: Seed of the run.
        epoch: Which pass over the data; each has its own order.
        window: Conversations packed together.
    """
    order = shuffle_order(len(lengths), seed, epoch, 0)
    rows: list[IntArray] = []
    for start in range(0, len(order), window):
        members = order[start : start + window]
        rows += [members[row] for row in _best_fit_decreasing(lengths[members], capacity)]
    return from_rows(rows).take(shuffle_order(len(rows), seed, epoch, 1))


def pack_in_order(lengths: IntArray, capacity: int) -> PackedRows:
    """Every conversation once, packed tightly and without a seed: for validation."""
    return from_rows(list(_best_fit_decreasing(lengths, capacity)))


def _best_fit_decreasing(lengths: IntArray, capacity: int) -> list[IntArray]:
    """Indices by row. O(log capacity) an item: a bit set tells which amounts of room occur, lists hold their rows."""
    assert len(lengths) == 0 or int(lengths.max()) <= capacity, "a conversation longer than a row"
    rows: list[list[int]] = []
    rows_by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set while some row has room for r more tokens
    order = np.argsort(-lengths, kind="stable")
    for index, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = rows_by_room[room].pop()
            if not rows_by_room[room]:
                rooms ^= 1 << room
            rows[row].append(index)
        else:
            room, row = capacity, len(rows)
            rows.append([index])
        left = room - length
        if left:
            rows_by_room[left].append(row)
            rooms |= 1 << left
    return [np.array(row, np.int64) for row in rows]
