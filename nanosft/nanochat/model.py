"""nanochat's transformer in all five generations, written from its facts and held to its own numbers by golden files.

Parameters carry nanochat's names, stay float32 (the masters) and are cast to `compute_dtype` in each product.
`hidden` and `logits` are apart, so that a loss may ask for logits at supervised positions only:

    hidden = model.hidden(ids, documents=documents)   # (B, T, C)
    logits = model.logits(hidden[supervised])         # (num_supervised, vocab_size) float32
"""

import math
from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn

from nanosft.nanochat.attention import Documents, Layout, PackedLayout, choose_kernel
from nanosft.nanochat.fused import mlp, norm, rotate_and_norm, scale
from nanosft.nanochat.generations import (
    SMEAR_CHANNELS,
    Generation,
    ModelConfig,
    compute_windows,
    has_value_embedding,
)

_LEAST_COMPILED_TOKENS: Final = 128
"""Fewer are an empty batch's: not worth a compilation of their own."""
_MOST_KERNELS: Final = 64


class Linear(nn.Module):
    """A matrix without bias, cast to the dtype of what it is applied to. Its values are left to whoever loads it."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_out, num_in))

    def forward(self, x: Tensor) -> Tensor:
        """The product. x (…, num_in) -> (…, num_out)."""
        return F.linear(x, self.weight.to(x.dtype))


class Embedding(nn.Module):
    """A table of vectors."""

    def __init__(self, num_rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_rows, width))

    def forward(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows of the table. ids (N,) -> (N, width) of `dtype`."""
        return F.embedding(ids, self.weight).to(dtype)


class Attention(nn.Module):
    """Attention with rotary positions, a norm on queries and keys, and on some layers a gated value embedding."""

    def __init__(self, config: ModelConfig, generation: Generation, layer: int, window: int | None) -> None:
        super().__init__()
        self.layer = layer
        self.window = window
        self.num_heads = config.n_head
        self.num_kv_heads = config.n_kv_head
        self.head_dim = config.head_dim
        self.gate_scale = generation.value_gate_scale
        self.gate_channels = generation.value_gate_channels
        # The factor on both q and k after their norm, taken into the factor on the scores.
        self.score_scale = generation.qk_scale**2 / math.sqrt(config.head_dim)
        self.c_q = Linear(config.n_embd, config.n_embd)
        self.c_k = Linear(config.n_embd, config.kv_dim)
        self.c_v = Linear(config.n_embd, config.kv_dim)
        self.c_proj = Linear(config.n_embd, config.n_embd)
        if has_value_embedding(config, generation, layer):
            self.ve_gate = Linear(self.gate_channels, config.n_kv_head)

    def forward(
        self, x: Tensor, layout: Layout, cos_sin: tuple[Tensor, Tensor], value_embedding: Tensor | None
    ) -> Tensor:
        """What is added to the stream. x (N, C), normed; cos, sin (N, 1, D/2); value_embedding (N, kv_dim) -> x."""
        q = self.c_q(x).view(-1, self.num_heads, self.head_dim)
        k = self.c_k(x).view(-1, self.num_kv_heads, self.head_dim)
        v = self.c_v(x).view(-1, self.num_kv_heads, self.head_dim)
        if value_embedding is not None:
            gate = self.gate_scale * torch.sigmoid(self.ve_gate(x[:, : self.gate_channels]))
            v = v + gate[:, :, None] * value_embedding.view(v.shape)
        q, k = rotate_and_norm(q, *cos_sin), rotate_and_norm(k, *cos_sin)
        y = layout.attend(self.layer, q, k, v, window=self.window, scale=self.score_scale)
        out: Tensor = self.c_proj(y.reshape(x.shape))
        return out


class MLP(nn.Module):
    """Two matrices with a squared ReLU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = Linear(width, 4 * width)
        self.c_proj = Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """What is added to the stream. x (N, C), normed -> (N, C)."""
        return mlp(x, self.c_fc.weight, self.c_proj.weight)


Factors = tuple[Tensor, Tensor]
"""What a block's stream and the first stream are multiplied by, before they are added to enter it: () each."""


class Block(nn.Module):
    """Attention and MLP, each added to the stream."""

    def __init__(self, config: ModelConfig, generation: Generation, layer: int, window: int | None) -> None:
        super().__init__()
        self.attn = Attention(config, generation, layer, window)
        self.mlp = MLP(config.n_embd)

    def forward(
        self,
        x: Tensor,
        x0: Tensor,
        factors: Factors | None,
        layout: Layout,
        cos_sin: tuple[Tensor, Tensor],
        value_embedding: Tensor | None,
    ) -> Tensor:
        """The stream after the block. x and x0, the first stream (N, C) -> (N, C)."""
        if factors is not None:
            x = scale(x, factors[0]) + scale(x0, factors[1])
        x = x + self.attn(norm(x), layout, cos_sin, value_embedding)
        out: Tensor = x + self.mlp(norm(x))
        return out


def _call_block(block: nn.Module, *args: Any) -> Tensor:
    out: Tensor = block(*args)
    return out


class GPT(nn.Module):
    """The model. Its parameters hold no values until `load_checkpoint` or `init_model` gives it some.

    Args:
        config: Sizes.
        generation: What is computed; `dataclasses.replace(generation, softcap=20.0)` for files of Mar 2 to 8, 2026.
        num_vocab_rows: Rows of embedding and head; None: padded as nanochat does.
        compute_dtype: Of products and of the stream; parameters and logits stay float32.
    """

    def __init__(
        self,
        config: ModelConfig,
        generation: Generation,
        *,
        num_vocab_rows: int | None = None,
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.config = config
        self.generation = generation
        self.compute_dtype = compute_dtype
        rows = num_vocab_rows or config.padded_vocab_size
        windows = compute_windows(config, generation)
        if generation.has_residual_scalars:
            self.resid_lambdas = nn.Parameter(torch.empty(config.n_layer))
            self.x0_lambdas = nn.Parameter(torch.empty(config.n_layer))
        if generation.has_smear:
            self.smear_gate = Linear(SMEAR_CHANNELS, 1)
            self.smear_lambda = nn.Parameter(torch.empty(1))
            self.backout_lambda = nn.Parameter(torch.empty(1))
        self.transformer = nn.ModuleDict(
            {
                "wte": Embedding(rows, config.n_embd),
                "h": nn.ModuleList(Block(config, generation, i, windows[i]) for i in range(config.n_layer)),
            }
        )
        self.lm_head = Linear(config.n_embd, rows)
        self.value_embeds = nn.ModuleDict(
            {
                str(layer): Embedding(rows, config.kv_dim)
                for layer in range(config.n_layer)
                if has_value_embedding(config, generation, layer)
            }
        )
        self._rotary: tuple[Tensor, Tensor] | None = None
        self._windows = windows
        self._compiled: Callable[..., Tensor] | None = None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.lm_head.weight.device

    def forward(self, ids: Tensor, *, documents: Documents | None = None) -> Tensor:
        """Logits of every position. ids (B, T) int64 -> (B, T, vocab_size) float32."""
        return self.logits(self.hidden(ids, documents=documents))

    def hidden(self, ids: Tensor, *, documents: Documents | None = None) -> Tensor:
        """The last stream, normed: what the head reads. ids (B, T) int64 -> (B, T, C) of `compute_dtype`.

        Args:
            ids: Token ids, below `vocab_size`.
            documents: Each sees itself alone, from position 0; None: each row is one document, as in nanochat.
        """
        num_rows, row_len = ids.shape
        kernel = choose_kernel(ids.device, self.compute_dtype)
        layout = PackedLayout((num_rows, row_len), documents, ids.device, kernel=kernel, windows=self._windows)
        is_worth_it = torch.is_grad_enabled() and ids.numel() >= _LEAST_COMPILED_TOKENS
        call = self._compiled if self._compiled is not None and is_worth_it else _call_block
        return self.run(ids.reshape(-1), layout, call).view(num_rows, row_len, -1)

    def compile_blocks(self, *, backend: str = "inductor") -> None:
        """Have `hidden` run compiled blocks where gradients are asked for.

        Blocks are compiled one by one, and those of a kind (window, value embedding) share what was made: two to four
        kinds, each for every length of a batch. A block that cannot be compiled in whole is an error.
        """
        torch._dynamo.config.recompile_limit = _MOST_KERNELS  # noqa: SLF001 - where torch keeps its settings
        self._compiled = torch.compile(_call_block, fullgraph=True, dynamic=False, backend=backend)

    def logits(self, hidden: Tensor) -> Tensor:
        """The head, softly capped. hidden (…, C) -> (…, vocab_size) float32."""
        weight = self.lm_head.weight[: self.config.vocab_size]
        logits = F.linear(hidden, weight.to(hidden.dtype)).float()
        cap = self.generation.softcap
        return cap * torch.tanh(logits / cap)

    def run(self, ids: Tensor, layout: Layout, call: Callable[..., Tensor] | None = None) -> Tensor:
        """The blocks over flattened tokens that lie as `layout` says. ids (N,) -> (N, C), normed.

        Args:
            ids: Token ids.
            layout: How they lie.
            call: Runs a block on its arguments; None: as it is.
        """
        call = call or _call_block
        x = norm(self.transformer["wte"](ids, self.compute_dtype))
        if self.generation.has_smear:
            gate = self.smear_lambda.to(x.dtype) * torch.sigmoid(self.smear_gate(x[:, :SMEAR_CHANNELS]))
            x = x + gate * layout.take_previous(x)
        # The first block gets one tensor twice, which a compiler would take for a kind of block of its own.
        x0 = x if call is _call_block else x.view_as(x)
        middle = x
        cos_sin = self._rotary_at(layout)
        factors: list[Factors | None] = [None] * self.config.n_layer
        if self.generation.has_residual_scalars:
            factors = list(zip(self.resid_lambdas.unbind(), self.x0_lambdas.unbind(), strict=True))
        for layer, block in enumerate(self._blocks()):
            x = call(block, x, x0, factors[layer], layout, cos_sin, self._value_embedding(ids, layer))
            if layer == self.config.n_layer // 2:
                middle = x
        if self.generation.has_smear:
            x = x - scale(middle, self.backout_lambda)
        return norm(x)

    def _blocks(self) -> nn.ModuleList:
        blocks = self.transformer["h"]
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    def _value_embedding(self, ids: Tensor, layer: int) -> Tensor | None:
        name = str(layer)
        if name not in self.value_embeds:
            return None
        table: Tensor = self.value_embeds[name](ids, self.compute_dtype)
        return table

    def _rotary_at(self, layout: Layout) -> tuple[Tensor, Tensor]:
        """Cosines and sines at the layout's positions: (N, 1, D/2) of `compute_dtype` each."""
        table = self._rotary
        if (
            table is None
            or table[0].shape[0] <= layout.max_position
            or table[0].device != self.device
            or table[0].dtype != self.compute_dtype
        ):
            num_positions = max(self.config.sequence_len, 2 ** (layout.max_position + 1).bit_length())
            table = self._rotary = self._compute_rotary(num_positions)
        cos, sin = table
        return cos[layout.positions, None], sin[layout.positions, None]

    def _compute_rotary(self, num_positions: int) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(mode=False):  # the table outlives the pass it is made in
            channels = torch.arange(0, self.config.head_dim, 2, dtype=torch.float32, device=self.device)
            frequencies = self.generation.rotary_base ** -(channels / self.config.head_dim)
            positions = torch.arange(num_positions, dtype=torch.float32, device=self.device)
            angles = torch.outer(positions, frequencies)
            return angles.cos().to(self.compute_dtype), angles.sin().to(self.compute_dtype)
