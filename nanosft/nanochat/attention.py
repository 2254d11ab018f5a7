"""Causal attention over packed rows: whole rows as nanochat does it, or every document alone.

A batch of rows is flattened to N = B * T tokens, and a row without documents is one document of length T. Which kernel
computes it depends on where the tensors are:

    CUDA, bfloat16   `torch.nn.attention.varlen`, one call a layer
    CUDA, float32    masked scaled-dot-product attention, one call a layer (varlen has no float32)
    CPU              one scaled-dot-product attention a document, and where a document is longer than a sliding window,
                     one a block of queries with the keys that the block can see

On CPU varlen raises and FlexAttention has no backward. A dense mask there costs 85 ms a layer for 2,048 tokens (4 heads
of 64, two cores, forward and backward, float32) where a call a document costs 21 and a call a block 12 at window 128.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

_QUERY_BLOCK: Final = 128


@dataclass(frozen=True)
class Documents:
    """Where documents lie in a flattened batch; each sees itself alone. None may cross the border of a row.

    Attributes:
        cu_seqlens: Borders, int32 (num_documents + 1,), on the device of the ids: first 0, last B * T. Padding is a
            document of its own.
        max_len: Length of the longest.
    """

    cu_seqlens: Tensor
    max_len: int

    @classmethod
    def from_lengths(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> "Documents":
        """Documents that follow one another; the lengths sum to B * T."""
        borders = torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0).to(torch.int32)
        documents = cls(borders.to(device), max(lengths))
        documents.__dict__["lengths"] = tuple(lengths)  # known here: spares a copy from the device
        return documents

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Length of each document."""
        return tuple(self.cu_seqlens.diff().tolist())


class Layout(Protocol):
    """How the flattened tokens of one forward pass lie: their positions, predecessors, and what they attend to."""

    positions: Tensor
    """(N,) int64: position of each token in its document, from 0."""

    max_position: int
    """An upper bound of `positions`, known without asking the device."""

    def take_previous(self, x: Tensor) -> Tensor:
        """Each token's predecessor in its document, zeros for a first token. x (N, C) -> (N, C)."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None, scale: float) -> Tensor:
        """Causal attention. q (N, H, D), k and v (N, H_kv, D) -> (N, H, D).

        Args:
            layer: Number of the layer; a cache is kept by it.
            q: Queries.
            k: Keys.
            v: Values.
            window: A token sees this many before its own; None is without limit.
            scale: Factor on the scores.
        """


class PackedRows:
    """The layout of training: rows of `batch_shape` (B, T), each token seeing its own document only."""

    def __init__(self, batch_shape: tuple[int, int], documents: Documents | None, device: torch.device) -> None:
        num_rows, row_len = batch_shape
        num_tokens = num_rows * row_len
        if documents is None:
            documents = Documents.from_lengths((row_len,) * num_rows, device)
        elif sum(documents.lengths) != num_tokens:
            raise ValueError(f"documents of {sum(documents.lengths)} tokens in a batch of {num_tokens}")
        self._batch_shape = batch_shape
        self._documents = documents
        self._masks: dict[int | None, Tensor] = {}
        starts = documents.cu_seqlens[:-1].to(torch.int64)
        self._index = torch.repeat_interleave(
            torch.arange(len(documents.lengths), device=device),
            documents.cu_seqlens.diff().to(torch.int64),
            output_size=num_tokens,
        )
        self.positions = torch.arange(num_tokens, device=device) - starts[self._index]
        self.max_position = documents.max_len - 1

    def take_previous(self, x: Tensor) -> Tensor:
        """See `Layout`."""
        shifted = F.pad(x[:-1], (0, 0, 1, 0))
        return shifted.masked_fill((self.positions == 0)[:, None], 0)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None, scale: float) -> Tensor:
        """See `Layout`."""
        del layer
        documents = self._documents
        if window is not None and window >= documents.max_len - 1:
            window = None
        if q.device.type == "cpu":
            return attend_by_document(q, k, v, documents.lengths, window=window, scale=scale)
        if q.dtype != torch.float32:
            return attend_varlen(q, k, v, documents, window=window, scale=scale)
        num_rows, row_len = self._batch_shape
        if window not in self._masks:
            self._masks[window] = self._make_mask(window)
        rows = [x.view(num_rows, row_len, *x.shape[1:]).transpose(1, 2) for x in (q, k, v)]
        out = attend_dense(*rows, mask=self._masks[window], scale=scale)
        return out.transpose(1, 2).reshape(q.shape)

    def _make_mask(self, window: int | None) -> Tensor:
        """(B, 1, T, T) bool: which key a query sees."""
        document = self._index.view(self._batch_shape)
        position = self.positions.view(self._batch_shape)
        distance = position[:, :, None] - position[:, None, :]
        seen = (document[:, :, None] == document[:, None, :]) & (distance >= 0)
        if window is not None:
            seen &= distance <= window
        return seen[:, None]


def attend_varlen(q: Tensor, k: Tensor, v: Tensor, documents: Documents, *, window: int | None, scale: float) -> Tensor:
    """All documents in one call of the variable-length kernel: CUDA, half precision."""
    borders = documents.cu_seqlens
    out = varlen_attn(
        q,
        k,
        v,
        borders,
        borders,
        documents.max_len,
        documents.max_len,
        scale=scale,
        window_size=(-1 if window is None else window, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert isinstance(out, Tensor)
    return out


def attend_by_document(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], *, window: int | None, scale: float
) -> Tensor:
    """One call a document, and one a block of queries where the window is shorter than the document.

    Args:
        q: (N, H, D).
        k: (N, H_kv, D).
        v: (N, H_kv, D).
        lengths: Of the documents, summing to N.
        window: As in `Layout.attend`.
        scale: Factor on the scores.
    """
    sizes = list(lengths)
    outs: list[Tensor] = []
    # split, not slices: its backward is one concatenation, not a sum of N-sized gradients a document.
    for parts in zip(*(torch.split(x, sizes) for x in (q, k, v)), strict=True):
        q_doc, k_doc, v_doc = (part.transpose(0, 1)[None] for part in parts)  # (1, H, length, D)
        length = q_doc.shape[2]
        if window is None or length <= window + 1:
            outs.append(attend_dense(q_doc, k_doc, v_doc, mask=None, scale=scale)[0].transpose(0, 1))
            continue
        for start in range(0, length, _QUERY_BLOCK):
            end = min(start + _QUERY_BLOCK, length)
            first = max(0, start - window)
            mask = _band_mask(end - start, end - first, window, q.dtype)
            keys, values = k_doc[:, :, first:end], v_doc[:, :, first:end]
            outs.append(attend_dense(q_doc[:, :, start:end], keys, values, mask=mask, scale=scale)[0].transpose(0, 1))
    return torch.cat(outs)


def attend_dense(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, scale: float) -> Tensor:
    """Scaled-dot-product attention of (B, H, T, D) with fewer key heads allowed; causal where no mask is given."""
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


@lru_cache(maxsize=64)
def _band_mask(num_queries: int, num_keys: int, window: int, dtype: torch.dtype) -> Tensor:
    """(num_queries, num_keys), 0 where seen and -inf elsewhere; the last query stands at the last key.

    Added to the scores as it is: a boolean mask would be turned into this one at every call.
    """
    with torch.inference_mode(mode=False):  # it outlives the pass it is made in
        distance = torch.arange(num_keys - num_queries, num_keys)[:, None] - torch.arange(num_keys)
        hidden = (distance < 0) | (distance > window)
        return torch.zeros(num_queries, num_keys, dtype=dtype).masked_fill(hidden, float("-inf"))
