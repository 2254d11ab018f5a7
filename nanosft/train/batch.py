"""From a plan's rows to the tensors of a micro-batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from nanosft.distributed import World
from nanosft.nanochat.attention import Documents, choose_kernel
from nanosft.packing import IntArray, PackedRows
from nanosft.train.data import StepPlan, TokenSet

AttentionScope = Literal["document", "row"]

_NUM_LENGTHS: Final = 16
"""Flattened batches on CUDA are filled up to one of so many lengths: a compiled block is made for each that occurs."""
_LENGTH_MULTIPLE: Final = 128


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward pass on one rank.

    Attributes:
        ids: (B, T) int64.
        supervised: (S,) int64 positions in the flattened batch whose next token is supervised.
        labels: (S,) int64 those next tokens.
        documents: Where conversations lie, or None: rows are seen whole.
        rows: Numbers of the packed rows, for errors.
        items: (S,) int64 index of the conversation of each supervised position.
    """

    ids: Tensor
    supervised: Tensor
    labels: Tensor
    documents: Documents | None = None
    rows: Sequence[int] = ()
    items: IntArray | None = None

    def to(self, device: torch.device) -> "MicroBatch":
        """The batch on `device`."""
        if device.type == "cpu":
            return self
        documents = self.documents
        if documents is not None:
            documents = Documents.from_lengths(documents.lengths, device)  # keeps the lengths: asking costs a wait
        ids, supervised, labels = (_send(tensor, device) for tensor in (self.ids, self.supervised, self.labels))
        return MicroBatch(
            ids,
            supervised,
            labels,
            documents,
            self.rows,
            self.items,
        )


@dataclass(frozen=True, slots=True)
class BatchBuilder:
    """Makes micro-batches of packed rows, all in one way.

    Attributes:
        tokens: All conversations.
        rows: Their packed rows.
        row_len: Tokens that the model sees of a row.
        attention: See `build_micro_batch`.
        pad_id: Token that fills a row; it is never supervised.
        device: Where the model computes; it decides the shapes that serve it best.
        dtype: What the model computes in; it decides with the device.
        device_rows: Most rows of a micro-batch.
    """

    tokens: TokenSet
    rows: PackedRows
    row_len: int
    attention: AttentionScope
    pad_id: int
    device: torch.device
    dtype: torch.dtype
    device_rows: int

    def build(self, numbers: Sequence[int]) -> MicroBatch:
        """The packed rows of these numbers as one forward pass, on CPU."""
        is_gpu = self.device.type != "cpu"
        return build_micro_batch(
            self.tokens,
            [self.rows.row(number) for number in numbers],
            row_len=self.row_len,
            attention=self.attention,
            pad_id=self.pad_id,
            fixed_shape=choose_kernel(self.device, self.dtype) == "dense",
            multiple=find_length_multiple(self.row_len, self.device_rows) if is_gpu else 1,
            row_numbers=numbers,
        )


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What a run is trained on, step by step.

    Attributes:
        plan: The packed rows of every step.
        builder: Makes micro-batches of them.
        device_rows: Most rows of a micro-batch on one rank.
    """

    plan: StepPlan
    builder: BatchBuilder
    device_rows: int

    def build(self, step: int, world: World) -> list[MicroBatch]:
        """A rank's micro-batches of a step, on its device."""
        shares = self.plan.micro_batches(step, rank=world.rank, world_size=world.size, device_rows=self.device_rows)
        return [self.builder.build(rows).to(world.device) for rows in shares]


def find_length_multiple(row_len: int, device_rows: int) -> int:
    """What lengths of flattened batches are filled up to a multiple of: a sixteenth of the longest, and a tile's."""
    longest = row_len * device_rows
    return -(-longest // (_NUM_LENGTHS * _LENGTH_MULTIPLE)) * _LENGTH_MULTIPLE


def build_micro_batch(
    tokens: TokenSet,
    rows: Sequence[IntArray],
    *,
    row_len: int,
    attention: AttentionScope,
    pad_id: int,
    fixed_shape: bool = False,
    multiple: int = 1,
    row_numbers: Sequence[int] = (),
) -> MicroBatch:
    """The conversations of some packed rows as one forward pass.

    Isolated conversations leave their last token out: nothing is predicted from it. They see nothing of their row, so
    they follow one another as one long row without the padding that whole conversations leave in rows of fixed length.

    Args:
        tokens: All conversations.
        rows: The conversations of each row.
        row_len: Tokens that the model sees of a row.
        attention: "document" isolates conversations; "row" shows each token its whole row so far, as nanochat does.
        pad_id: Token that fills a row; it is never supervised.
        fixed_shape: Keep isolated conversations in their `len(rows)` x `row_len`, for attention by a dense mask.
        multiple: Else fill the long row up to a multiple of this, so that compiled models see few lengths.
        row_numbers: Kept for errors.
    """
    if not rows:
        return empty_micro_batch(pad_id)
    if attention == "row":
        pieces = [[_shifted_row(tokens, row, row_len, pad_id)] for row in rows]
    else:
        pieces = [[_shifted(tokens, int(item)) for item in row] for row in rows]
        if fixed_shape:
            for row in pieces:
                _fill(row, row_len - sum(len(piece[0]) for piece in row), pad_id)
        elif multiple > 1:
            num_tokens = sum(len(piece[0]) for row in pieces for piece in row)
            _fill(pieces[-1], -num_tokens % multiple, pad_id)
    flat = [piece for row in pieces for piece in row]
    ids, labels, items = (np.concatenate([piece[part] for piece in flat]) for part in range(3))
    supervised = np.flatnonzero(labels >= 0)
    documents = None
    if attention == "document":
        documents = Documents.from_lengths([len(piece[0]) for piece in flat])
    return MicroBatch(
        torch.from_numpy(ids).view(len(rows) if attention == "row" or fixed_shape else 1, -1),
        torch.from_numpy(supervised),
        torch.from_numpy(labels[supervised]),
        documents,
        row_numbers,
        items[supervised],
    )


def empty_micro_batch(pad_id: int) -> MicroBatch:
    """The smallest batch that touches every parameter: two tokens, none supervised."""
    nothing = torch.zeros(0, dtype=torch.int64)
    ids = torch.full((1, 2), pad_id, dtype=torch.int64)
    return MicroBatch(ids, nothing, nothing, Documents.from_lengths([2]), (), np.zeros(0, np.int64))


def batch_from_rows(ids: Tensor, mask: Tensor | None = None) -> MicroBatch:
    """Rows given as tokens, each seen whole: plain next-token training, or nanochat's packing.

    Args:
        ids: (B, T + 1) int64.
        mask: (B, T + 1), 1 where a token is supervised; None: all are.
    """
    labels = ids[:, 1:].flatten()
    flags = torch.ones_like(labels) if mask is None else mask[:, 1:].flatten()
    supervised = flags.nonzero().squeeze(1)
    return MicroBatch(ids[:, :-1], supervised, labels[supervised], None, range(len(ids)))


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """On its way to the device: from pinned memory no one waits for the copy, neither this thread nor the GPU."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


Piece = tuple[IntArray, IntArray, IntArray]
"""Inputs (n,), their next tokens or -1 (n,), and the index of the conversation (n,)."""


def _shifted(tokens: TokenSet, item: int) -> Piece:
    ids, mask = tokens.conversation(item)
    labels = np.where(mask[1:], ids[1:], -1)
    return ids[:-1], labels, np.full(len(labels), item, np.int64)


def _shifted_row(tokens: TokenSet, row: IntArray, row_len: int, pad_id: int) -> Piece:
    ids = np.full(row_len + 1, pad_id, np.int64)
    labels = np.full(row_len + 1, -1, np.int64)
    items = np.zeros(row_len + 1, np.int64)
    start = 0
    for item in row:
        own, mask = tokens.conversation(int(item))
        end = start + len(own)
        ids[start:end] = own
        labels[start:end] = np.where(mask, own, -1)
        items[start:end] = item
        start = end
    return ids[:-1], labels[1:], items[1:]


def _fill(pieces: list[Piece], total: int, pad_id: int) -> None:
    """Add pieces of padding, short ones: attention's work grows with their squares."""
    for start in range(0, total, _LENGTH_MULTIPLE):
        num = min(_LENGTH_MULTIPLE, total - start)
        pieces.append((np.full(num, pad_id, np.int64), np.full(num, -1, np.int64), np.zeros(num, np.int64)))
