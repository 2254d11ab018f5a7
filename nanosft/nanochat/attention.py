"""Causal attention over packed rows: whole rows as nanochat does it, or every document alone.

A batch of rows is flattened to N = B * T tokens, and a row without documents is one document of length T. Which kernel
computes it depends on where the tensors are:

    varlen    CUDA of sm_80 and newer, half precision: `torch.nn.attention.varlen`, one call a layer. FlashAttention 3
              where `activate_flash_attention` found it installed, else torch's own FlashAttention 2
    dense     other CUDA, and float32 there: masked scaled-dot-product attention, one call a layer
    blocked   CPU: `BlockedAttention`, blocks of 128 queries, each with the keys that one of them can see

On CPU varlen raises and FlexAttention has no backward. For documents of 700, 600, 500 and 248 tokens, 4 heads of 64,
two cores, forward and backward, a layer took, at a window of 128 and of 512 tokens: a dense mask 85 and 85 ms in
float32 (158 and 68 in bfloat16), one scaled-dot-product call a block of queries 15 and 21 (17 and 23),
`BlockedAttention` 12 and 17 (7 and 12).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final, Literal, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor
from torch.nn.attention import activate_flash_attention_impl

Kernel = Literal["varlen", "dense", "blocked"]
_FLASH_CAPABILITY: Final = (8, 0)
_FLASH_3_CAPABILITY: Final = (9, 0)
_MIN_LENGTH: Final = 128
_MIN_BORDERS: Final = 128
_QUERY_BLOCK: Final = 128
_MASK_STEP: Final = 1024


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
        if torch.device(device).type == "cuda":
            borders = borders.pin_memory()
        documents = cls(borders.to(device, non_blocking=True), max(lengths))
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


def choose_kernel(device: torch.device, dtype: torch.dtype) -> Kernel:
    """What computes attention there; see the table at the top."""
    if device.type == "cpu":
        return "blocked"
    is_half = dtype in (torch.bfloat16, torch.float16)
    if device.type == "cuda" and is_half and torch.cuda.get_device_capability(device) >= _FLASH_CAPABILITY:
        return "varlen"
    return "dense"


def activate_flash_attention(device: torch.device) -> str:
    """Take FlashAttention 3 where the GPU is one for it and the package is installed; which one is in force."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[:1] != _FLASH_3_CAPABILITY[:1]:
        return "FA2"
    try:
        activate_flash_attention_impl("FA3")
    except (ImportError, RuntimeError, ValueError):  # not installed, without the kernels, or unknown to this torch
        return "FA2"
    return "FA3"


class PackedLayout:
    """The layout of training: rows of `batch_shape` (B, T), each token seeing its own document only.

    Args:
        batch_shape: Rows and their length.
        documents: Where documents lie; None: each row is one.
        device: Where the tokens are.
        kernel: What computes attention.
        windows: All windows that will be asked for: what a kernel needs for them is made here, so that nothing but
            tensors is left for a compiled block to see.
    """

    def __init__(
        self,
        batch_shape: tuple[int, int],
        documents: Documents | None,
        device: torch.device,
        *,
        kernel: Kernel = "blocked",
        windows: Collection[int | None] = (),
    ) -> None:
        num_rows, row_len = batch_shape
        num_tokens = num_rows * row_len
        if documents is None:
            documents = Documents.from_lengths((row_len,) * num_rows, device)
        elif sum(documents.lengths) != num_tokens:
            raise ValueError(f"documents of {sum(documents.lengths)} tokens in a batch of {num_tokens}")
        self._batch_shape = batch_shape
        self._documents = documents
        self._kernel = kernel
        # What a compiled block sees of the documents takes few values and shapes: each means another compilation.
        # An upper bound of their length, and borders with as many empty documents at the end as make a power of two
        self._max_len = _round_to_power(documents.max_len, _MIN_LENGTH)
        num_borders = len(documents.cu_seqlens)
        free = _round_to_power(num_borders, _MIN_BORDERS) - num_borders
        self._borders = F.pad(documents.cu_seqlens, (0, free), value=num_tokens)
        starts = documents.cu_seqlens[:-1].to(torch.int64)
        self._index = torch.repeat_interleave(
            torch.arange(len(documents.lengths), device=device),
            documents.cu_seqlens.diff().to(torch.int64),
            output_size=num_tokens,
        )
        self.positions = torch.arange(num_tokens, device=device) - starts[self._index]
        self.max_position = documents.max_len - 1
        narrow = {self._narrow(window) for window in windows} if kernel == "dense" else set()
        self._masks = {window: self._make_mask(window) for window in narrow}

    def take_previous(self, x: Tensor) -> Tensor:
        """See `Layout`."""
        shifted = F.pad(x[:-1], (0, 0, 1, 0))
        return shifted.masked_fill((self.positions == 0)[:, None], 0)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None, scale: float) -> Tensor:
        """See `Layout`."""
        del layer
        documents, window = self._documents, self._narrow(window)
        if self._kernel == "blocked":
            return attend_by_block(q, k, v, documents.lengths, window=window, scale=scale)
        if self._kernel == "varlen":
            return attend_varlen(q, k, v, self._borders, self._max_len, window=window, scale=scale)
        num_rows, row_len = self._batch_shape
        rows = [x.view(num_rows, row_len, *x.shape[1:]).transpose(1, 2) for x in (q, k, v)]
        out = attend_dense(*rows, mask=self._masks[window], scale=scale)
        return out.transpose(1, 2).reshape(q.shape)

    def _narrow(self, window: int | None) -> int | None:
        """None for a window that hides nothing."""
        max_len = self._documents.max_len if self._kernel == "blocked" else self._max_len
        return None if window is None or window >= max_len - 1 else window

    def _make_mask(self, window: int | None) -> Tensor:
        """(B, 1, T, T) bool: which key a query sees."""
        document = self._index.view(self._batch_shape)
        position = self.positions.view(self._batch_shape)
        distance = position[:, :, None] - position[:, None, :]
        seen = (document[:, :, None] == document[:, None, :]) & (distance >= 0)
        if window is not None:
            seen &= distance <= window
        return seen[:, None]


def probe_attention(device: torch.device, dtype: torch.dtype) -> str:
    """What computes attention over documents there, after a try on two small ones.

    Raises:
        RuntimeError: It fails on this machine, or what comes out are no numbers.
    """
    documents = Documents.from_lengths((40, 24), device)
    x = torch.ones(64, 2, 64, device=device, dtype=dtype)
    out = PackedLayout((1, 64), documents, device).attend(0, x, x, x, window=None, scale=0.125)
    if not torch.allclose(out.float().cpu(), torch.ones(64, 2, 64)):
        raise RuntimeError("the mean of ones is not one")
    if device.type == "cpu":
        return "blocks of 128 queries"
    return "masked scaled-dot-product" if dtype == torch.float32 else "variable-length kernel"


def attend_by_block(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], *, window: int | None, scale: float
) -> Tensor:
    """As `Layout.attend`; the lengths of the documents sum to N. CPU."""
    out: Tensor = BlockedAttention.apply(q, k, v, lengths, window, scale)  # type: ignore[no-untyped-call]
    return out


def attend_varlen(
    q: Tensor, k: Tensor, v: Tensor, borders: Tensor, max_len: int, *, window: int | None, scale: float
) -> Tensor:
    """All documents in one call of the variable-length kernel: CUDA, half precision. None is longer than `max_len`."""
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - loads Dynamo: a third of a start, and of use on CUDA alone

    out = varlen_attn(
        q,
        k,
        v,
        borders,
        borders,
        max_len,
        max_len,
        scale=scale,
        window_size=(-1 if window is None else window, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert isinstance(out, Tensor)
    return out


class BlockedAttention(torch.autograd.Function):
    """Attention by blocks of queries; products and softmax in the tensors' dtype, gradients of k, v summed in float32.

    It keeps the attention weights for the backward pass: N * H * (window + 128) numbers a layer at most.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], window: int | None, scale: float
    ) -> Tensor:
        """See `attend_by_block`."""
        group = q.shape[1] // k.shape[1]
        queries, keys, values = _by_head(q), _by_head(k, group), _by_head(v, group)  # (H, N, D)
        mask = _band_mask(_round_up(max(lengths)) if window is None else window, window, q.dtype)
        out = torch.empty_like(queries)
        kept: list[tuple[int, int, int, Tensor]] = []
        for first, start, end in _blocks(lengths, window):
            num_queries, num_before = end - start, start - first
            lead = mask.shape[1] - _QUERY_BLOCK - num_before
            bias = mask[:num_queries, lead : lead + num_before + num_queries].expand(queries.shape[0], -1, -1)
            scores = torch.baddbmm(bias, queries[:, start:end], keys[:, first:end].transpose(1, 2), alpha=scale)
            weights = scores.softmax(-1)
            out[:, start:end] = torch.bmm(weights, values[:, first:end])
            kept.append((first, start, end, weights))
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(queries, keys, values, *(weights for *_, weights in kept))
            ctx.blocks = [block for *block, _ in kept]
            ctx.scale, ctx.group = scale, group
        return out.transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of q, k and v."""
        queries, keys, values, *kept = ctx.saved_tensors
        grads = _by_head(grad_out)
        grad_q = torch.empty_like(queries)
        dtype = torch.promote_types(keys.dtype, torch.float32)
        grad_k, grad_v = (torch.zeros(keys.shape, dtype=dtype) for _ in range(2))
        for (first, start, end), weights in zip(ctx.blocks, kept, strict=True):
            grad = grads[:, start:end]
            grad_v[:, first:end] += torch.bmm(weights.transpose(1, 2), grad)
            grad_weights = torch.bmm(grad, values[:, first:end].transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)  # noqa: SLF001
            grad_q[:, start:end] = torch.bmm(grad_scores, keys[:, first:end])
            grad_k[:, first:end] += torch.bmm(grad_scores.transpose(1, 2), queries[:, start:end])
        grad_k, grad_v = (_sum_group(grad, ctx.group).to(keys.dtype) for grad in (grad_k.mul_(ctx.scale), grad_v))
        return grad_q.mul_(ctx.scale).transpose(0, 1), grad_k, grad_v, None, None, None


def _blocks(lengths: Sequence[int], window: int | None) -> Iterator[tuple[int, int, int]]:
    """First key, first query, and end of both, for every block of queries."""
    origin = 0
    for length in lengths:
        for start in range(origin, origin + length, _QUERY_BLOCK):
            first = origin if window is None else max(origin, start - window)
            yield first, start, min(start + _QUERY_BLOCK, origin + length)
        origin += length


def _by_head(x: Tensor, group: int = 1) -> Tensor:
    """(N, H, D) -> (H * group, N, D), each head `group` times."""
    x = x.transpose(0, 1)
    return x.contiguous() if group == 1 else x.repeat_interleave(group, dim=0)


def _sum_group(x: Tensor, group: int) -> Tensor:
    """(H * group, N, D) -> (N, H, D), summed over each group."""
    if group > 1:
        x = x.view(-1, group, *x.shape[1:]).sum(1)
    return x.transpose(0, 1)


def attend_dense(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, scale: float) -> Tensor:
    """Scaled-dot-product attention of (B, H, T, D) with fewer key heads allowed; causal where no mask is given."""
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


def _round_to_power(number: int, least: int) -> int:
    return max(least, 1 << (number - 1).bit_length())


def _round_up(length: int) -> int:
    return -(-length // _MASK_STEP) * _MASK_STEP


@lru_cache(maxsize=32)
def _band_mask(num_before: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """(128, num_before + 128): 0 where query i sees key j, -inf elsewhere; query i stands at key num_before + i.

    A block with fewer keys takes the columns that end at its last one. Added to the scores in their product.
    """
    with torch.inference_mode(mode=False):  # it outlives the pass it is made in
        distance = torch.arange(num_before, num_before + _QUERY_BLOCK)[:, None] - torch.arange(
            num_before + _QUERY_BLOCK
        )
        hidden = distance < 0 if window is None else (distance < 0) | (distance > window)
        return torch.zeros(distance.shape, dtype=dtype).masked_fill(hidden, float("-inf"))
