"""Keys and values of every token that a batch's rows have read, and the layout of a step that reads more.

A step may give any row any number of tokens: one where it writes its answer, many where it reads its prompt. Rows
with one token are attended together, the others each alone.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor

from nanosft.nanochat.model import GPT

_LEAST_CAPACITY: Final = 128


class Span(NamedTuple):
    """Tokens of one row that a step reads: positions `start` to `start + num_tokens` of the row `row`."""

    row: int
    start: int
    num_tokens: int


class Cache:
    """Keys and values by row and position, and each row's last embedding, which the next one is smeared with.

    Rows are the numbers 0 to `num_rows`; it grows by doubling, and rows taken in anew need `reset`.

    Attributes:
        keys: One a layer, (num_rows * H_kv, capacity, D).
        values: As keys.
        previous: (num_rows, C).
    """

    def __init__(self, model: GPT) -> None:
        config = model.config
        self._num_kv_heads, self._head_dim = config.n_kv_head, config.head_dim
        self._dtype, self._device = model.compute_dtype, model.device
        self.num_rows = self.capacity = 0
        self.keys, self.values = ([self._zeros(0, 0) for _ in range(config.n_layer)] for _ in range(2))
        self.previous = torch.zeros(0, config.n_embd, dtype=self._dtype, device=self._device)

    def reserve(self, num_rows: int, num_tokens: int) -> None:
        """Have room for this many rows of this many tokens; what is held stays."""
        if num_rows <= self.num_rows and num_tokens <= self.capacity:
            return
        if num_rows > self.num_rows:
            num_rows = max(num_rows, 2 * self.num_rows)
        if num_tokens > self.capacity:
            num_tokens = max(num_tokens, 2 * self.capacity, _LEAST_CAPACITY)
        num_rows, num_tokens = max(num_rows, self.num_rows), max(num_tokens, self.capacity)
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):  # layer by layer, so that one layer alone is held twice
                new = self._zeros(num_rows, num_tokens)
                new[: old.shape[0], : old.shape[1]] = old
                tensors[layer] = new
        self.previous = F.pad(self.previous, (0, 0, 0, num_rows - self.num_rows))
        self.num_rows, self.capacity = num_rows, num_tokens

    def reset(self, row: int) -> None:
        """Begin a row: nothing precedes its first token."""
        self.previous[row] = 0

    def move(self, source: int, target: int, num_tokens: int) -> None:
        """Put the first tokens of one row in the place of another."""
        for tensors in (self.keys, self.values):
            for tensor in tensors:
                rows = tensor.view(-1, self._num_kv_heads, self.capacity, self._head_dim)
                rows[target, :, :num_tokens] = rows[source, :, :num_tokens]
        self.previous[target] = self.previous[source]

    def release(self) -> None:
        """Give the memory back; every row is gone."""
        self.keys, self.values = ([self._zeros(0, 0) for _ in tensors] for tensors in (self.keys, self.values))
        self.previous = self.previous[:0].clone()
        self.num_rows = self.capacity = 0

    def _zeros(self, num_rows: int, num_tokens: int) -> Tensor:
        shape = (num_rows * self._num_kv_heads, num_tokens, self._head_dim)
        return torch.zeros(shape, dtype=self._dtype, device=self._device)


class CachedStep:
    """The layout (see `Layout`) of one step over a cache that has room for it.

    Args:
        cache: Takes the step's keys and values.
        spans: What is read, those of one token first; a row has one span at most.
        num_rows: Rows of the cache that are in use.
    """

    def __init__(self, cache: Cache, spans: Sequence[Span], num_rows: int) -> None:
        device = cache.previous.device
        self._cache = cache
        self._num_single = sum(span.num_tokens == 1 for span in spans)
        assert all(span.num_tokens == 1 for span in spans[: self._num_single])
        self._chunks = spans[self._num_single :]
        self._num_rows = num_rows
        starts = torch.tensor([span.start for span in spans], device=device)
        self._span_rows = torch.tensor([span.row for span in spans], device=device)
        self._span_ends: Tensor | None = None
        self.max_position = max(span.start + span.num_tokens for span in spans) - 1
        self._rows, self.positions = self._span_rows, starts
        if self._chunks:
            counts = torch.tensor([span.num_tokens for span in spans], device=device)
            ends = counts.cumsum(0)
            self._span_ends = ends - 1
            num_tokens = sum(span.num_tokens for span in spans)
            index = torch.repeat_interleave(torch.arange(len(spans), device=device), counts, output_size=num_tokens)
            self._rows = self._span_rows[index]
            self.positions = torch.arange(num_tokens, device=device) - (ends - counts - starts)[index]
        self._masks: dict[tuple[int, int | None], Tensor] = {}
        self._prepare_singles([span.start for span in spans[: self._num_single]])

    def _prepare_singles(self, positions: Sequence[int]) -> None:
        self._all_single = self._num_single == self._num_rows == len(self._span_rows)
        self._single_positions = self.positions[: self._num_single]
        if not self._all_single:  # rows without a token in this step take part all the same, and see their first key
            self._single_positions = torch.zeros(self._num_rows, dtype=torch.int64, device=self.positions.device)
            self._single_positions[self._rows[: self._num_single]] = self.positions[: self._num_single]
        self._least, self._most = (min(positions), max(positions)) if positions else (0, 0)
        if not self._all_single:
            self._least = 0

    def take_previous(self, x: Tensor) -> Tensor:
        """See `Layout`; the last embedding of each span is kept for the next step."""
        before = self._cache.previous[self._span_rows]
        if self._span_ends is None:
            self._cache.previous[self._span_rows] = x
            return before
        self._cache.previous[self._span_rows] = x[self._span_ends]
        shifted = F.pad(x[:-1], (0, 0, 1, 0))
        shifted[F.pad(self._span_ends[:-1] + 1, (1, 0))] = before
        return shifted

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None, scale: float) -> Tensor:
        """See `Layout`."""
        num_kv_heads = k.shape[1]
        shape = (-1, num_kv_heads, self._cache.capacity, k.shape[2])
        keys, values = (tensors[layer].view(shape) for tensors in (self._cache.keys, self._cache.values))
        keys[self._rows, :, self.positions] = k
        values[self._rows, :, self.positions] = v
        if self._all_single:
            return self._attend_singles(q, keys, values, window=window, scale=scale)
        out = torch.empty_like(q)
        if self._num_single:
            rows = self._rows[: self._num_single]
            padded = q.new_zeros(self._num_rows, *q.shape[1:])
            padded[rows] = q[: self._num_single]
            out[: self._num_single] = self._attend_singles(padded, keys, values, window=window, scale=scale)[rows]
        offset = self._num_single
        for span in self._chunks:
            part = slice(offset, offset + span.num_tokens)
            out[part] = self._attend_chunk(span, q[part], keys, values, window=window, scale=scale)
            offset += span.num_tokens
        return out

    def _attend_singles(self, q: Tensor, keys: Tensor, values: Tensor, *, window: int | None, scale: float) -> Tensor:
        """One query a row, each over its own row of the cache. q (num_rows, H, D) -> as q."""
        num_rows, num_heads, head_dim = q.shape
        num_kv_heads = keys.shape[1]
        first = 0 if window is None else max(0, self._least - window)
        seen = slice(first, self._most + 1)
        key = (first, window)
        if key not in self._masks:
            distance = self._single_positions[:, None] - torch.arange(first, self._most + 1, device=q.device)
            hidden = distance < 0 if window is None else (distance < 0) | (distance > window)
            self._masks[key] = torch.zeros(hidden.shape, dtype=q.dtype, device=q.device).masked_fill_(
                hidden, -torch.inf
            )
        group = num_heads // num_kv_heads
        queries = q.view(num_rows * num_kv_heads, group, head_dim)
        scores = torch.bmm(queries, keys[:num_rows].flatten(0, 1)[:, seen].transpose(1, 2))
        scores = scores.view(num_rows, num_heads, -1).mul_(scale).add_(self._masks[key][:, None])
        weights = scores.softmax(-1).view(num_rows * num_kv_heads, group, -1)
        return torch.bmm(weights, values[:num_rows].flatten(0, 1)[:, seen]).view(q.shape)

    def _attend_chunk(
        self, span: Span, q: Tensor, keys: Tensor, values: Tensor, *, window: int | None, scale: float
    ) -> Tensor:
        """Several queries of one row. q (num_tokens, H, D) -> as q."""
        end = span.start + span.num_tokens
        first = 0 if window is None else max(0, span.start - window)
        distance = torch.arange(span.start, end, device=q.device)[:, None] - torch.arange(first, end, device=q.device)
        mask = distance >= 0 if window is None else (distance >= 0) & (distance <= window)
        out = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            keys[span.row, None, :, first:end],
            values[span.row, None, :, first:end],
            attn_mask=mask,
            scale=scale,
            enable_gqa=q.shape[1] != keys.shape[1],
        )
        return out[0].transpose(0, 1)
