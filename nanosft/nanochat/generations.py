"""The five generations of nanochat's model, told apart by the keys of a state dict, and `model_config`.

Pure and torch-free. The facts behind the table were read from nanochat's sources (github.com/karpathy/nanochat) at
commits of October 2025 to March 2026 and are proved by the parity tests of g1, g3 and g5.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from nanosft.errors import DataError

VOCAB_MULTIPLE: Final = 64
"""Embedding and head rows are padded up to a multiple of this from December 2025 on."""

_SHORT_WINDOW_MULTIPLE: Final = 128

_LARGEST: Final[Mapping[str, int]] = {
    "sequence_len": 1 << 20,
    "vocab_size": 1 << 20,
    "n_layer": 1 << 10,
    "n_head": 1 << 10,
    "n_kv_head": 1 << 10,
    "n_embd": 1 << 16,
}
"""Far beyond any model of nanochat's: a meta file must not have memory taken that its weights do not fill."""
_NUM_NAMED: Final = 16


@dataclass(frozen=True, slots=True)
class Generation:
    """What one generation of the model computes, and which parameters it has.

    Attributes:
        name: "g1" to "g5".
        has_residual_scalars: The stream before block i is `resid_lambdas[i] * x + x0_lambdas[i] * x0`.
        value_gate_channels: How many channels gate the value embeddings; 0 where there are none.
        value_gate_scale: The gate is this times a sigmoid.
        qk_scale: Factor on q and on k after their norm.
        rotary_base: Angles are `t / rotary_base ** (2 * i / head_dim)`.
        softcap: Logits are `softcap * tanh(logits / softcap)`.
        short_window_divisor: A short window is the context divided by this.
        rounds_short_window: Whether the short window is rounded up to a multiple of 128.
        has_smear: The embedding is smeared over its predecessor, and the middle of the stream is backed out.
    """

    name: str
    has_residual_scalars: bool
    value_gate_channels: int
    value_gate_scale: float
    qk_scale: float
    rotary_base: float
    softcap: float
    short_window_divisor: int
    rounds_short_window: bool
    has_smear: bool

    def short_window(self, sequence_len: int) -> int:
        """Tokens before its own that a position sees in a layer 'S'."""
        if not self.rounds_short_window:
            return sequence_len // self.short_window_divisor
        blocks = math.ceil(sequence_len / self.short_window_divisor / _SHORT_WINDOW_MULTIPLE)
        return blocks * _SHORT_WINDOW_MULTIPLE


SMEAR_CHANNELS: Final = 24
"""Channels of the embedding that gate the smear."""

GENERATIONS: Final[Mapping[str, Generation]] = {
    generation.name: generation
    for generation in (
        Generation("g1", False, 0, 0.0, 1.0, 10_000.0, 15.0, 2, False, False),  # noqa: FBT003 - a table
        Generation("g2", True, 0, 0.0, 1.0, 10_000.0, 15.0, 2, False, False),  # noqa: FBT003
        Generation("g3", True, 32, 2.0, 1.0, 10_000.0, 15.0, 2, False, False),  # noqa: FBT003
        Generation("g4", True, 12, 3.0, 1.15, 100_000.0, 15.0, 3, True, False),  # noqa: FBT003
        Generation("g5", True, 12, 3.0, 1.2, 100_000.0, 15.0, 4, True, True),  # noqa: FBT003
    )
}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """nanochat's `model_config`.

    Attributes:
        sequence_len: The context C that windows are counted from.
        vocab_size: Tokens; the rows of the embedding may be padded beyond.
        n_layer: Number of blocks.
        n_head: Query heads.
        n_kv_head: Key and value heads; divides `n_head`.
        n_embd: Width of the stream.
        window_pattern: 'S' and 'L' tiled over the layers; None means full context (files of 2025).
    """

    sequence_len: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    window_pattern: str | None = None

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.n_embd // self.n_head

    @property
    def kv_dim(self) -> int:
        """Channels of all key heads together."""
        return self.n_kv_head * self.head_dim

    @property
    def padded_vocab_size(self) -> int:
        """Rows of embedding and head as nanochat pads them from December 2025 on."""
        return math.ceil(self.vocab_size / VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    def to_dict(self) -> dict[str, Any]:
        """The table as nanochat writes it: without `window_pattern` where there is none."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def parse_model_config(value: object, *, where: str) -> ModelConfig:
    """Check nanochat's `model_config`.

    Args:
        value: The decoded JSON.
        where: The URI of the meta file, for errors.

    Raises:
        DataError: A key is missing, unknown, or has no possible value. Where it says no `n_kv_head`, there are as many
            as heads; where it says no `window_pattern`, the context is full.
    """
    if not isinstance(value, dict):
        raise DataError(f"{where}: model_config must be an object with sequence_len, vocab_size, n_layer, …")
    known = ModelConfig.__dataclass_fields__
    unknown = sorted(map(str, set(value) - set(known)))
    if unknown:
        raise DataError(
            f"{where}: model_config has {name_some(unknown)}, which no known generation of nanochat has: "
            "its model may compute something else"
        )
    filled = {"n_kv_head": value.get("n_head"), **value}
    for key in known:
        item = filled.get(key)
        if key == "window_pattern":
            if item is not None and (not isinstance(item, str) or not item or set(item.upper()) - {"S", "L"}):
                raise DataError(f"{where}: model_config: window_pattern must be letters S and L, found {item!r:.80}")
        elif not isinstance(item, int) or isinstance(item, bool) or not 1 <= item <= _LARGEST[key]:
            raise DataError(f"{where}: model_config: {key} must be 1 to {_LARGEST[key]:,}, found {item!r:.80}")
    config = ModelConfig(**filled)
    if config.n_embd % config.n_head or config.n_head % config.n_kv_head or config.head_dim % 2:
        raise DataError(
            f"{where}: model_config: n_embd {config.n_embd}, n_head {config.n_head}, n_kv_head {config.n_kv_head} "
            "do not divide: n_head must divide n_embd into an even head, and n_kv_head must divide n_head"
        )
    return config


def name_some(keys: Sequence[str]) -> str:
    """Keys of a foreign file for a message: quoted and bounded, in number and in length."""
    named = ", ".join(repr(key[:80]) for key in keys[:_NUM_NAMED])
    return named + (f" and {len(keys) - _NUM_NAMED} more" if len(keys) > _NUM_NAMED else "")


def detect_generation(keys: Iterable[str], gate_shape: tuple[int, ...] | None, *, where: str) -> Generation:
    """Tell a state dict's generation by its keys.

    Args:
        keys: The state dict's keys, without the prefixes `_orig_mod.` and `module.`.
        gate_shape: Shape of any `ve_gate` weight, (n_kv_head, channels); None where there is none.
        where: The URI of the file, for errors.

    Raises:
        DataError: The keys fit no generation.
    """
    names = set(keys)
    if {"smear_gate.weight", "smear_lambda", "backout_lambda"} & names:
        return GENERATIONS["g5"]
    if gate_shape is not None:
        for generation in (GENERATIONS["g3"], GENERATIONS["g4"]):
            if gate_shape[-1] == generation.value_gate_channels:
                return generation
        raise DataError(f"{where}: ve_gate has shape {gate_shape}: known gates read 12 or 32 channels")
    if any(name.startswith("value_embeds.") for name in names):
        raise DataError(f"{where}: has value_embeds but no ve_gate: no known generation of nanochat's model")
    if {"resid_lambdas", "x0_lambdas"} & names:
        return GENERATIONS["g2"]
    return GENERATIONS["g1"]


def compute_windows(config: ModelConfig, generation: Generation) -> tuple[int | None, ...]:
    """How many tokens before its own a position sees, layer by layer; None is without limit.

    The last layer is always 'L', whose window is `sequence_len` whatever the length of a row. g1 knew no windows:
    without a pattern it is not limited at all.
    """
    if config.window_pattern is None and not generation.has_residual_scalars:
        return (None,) * config.n_layer
    pattern = (config.window_pattern or "L").upper()
    letters = [pattern[layer % len(pattern)] for layer in range(config.n_layer)]
    letters[-1] = "L"
    short = generation.short_window(config.sequence_len)
    return tuple(short if letter == "S" else config.sequence_len for letter in letters)


def has_value_embedding(config: ModelConfig, generation: Generation, layer: int) -> bool:
    """Whether the layer adds a value embedding: every second one, the last included."""
    return generation.value_gate_channels > 0 and layer % 2 == (config.n_layer - 1) % 2


def parameter_shapes(config: ModelConfig, generation: Generation, num_vocab_rows: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter, as nanochat's state dict has them.

    Args:
        config: Sizes.
        generation: Which parameters there are.
        num_vocab_rows: Rows of embedding and head: `vocab_size`, or padded.
    """
    width, kv_dim = config.n_embd, config.kv_dim
    shapes: dict[str, tuple[int, ...]] = {}
    if generation.has_residual_scalars:
        shapes |= {"resid_lambdas": (config.n_layer,), "x0_lambdas": (config.n_layer,)}
    if generation.has_smear:
        shapes |= {"smear_lambda": (1,), "backout_lambda": (1,), "smear_gate.weight": (1, SMEAR_CHANNELS)}
    shapes["transformer.wte.weight"] = (num_vocab_rows, width)
    for layer in range(config.n_layer):
        block = f"transformer.h.{layer}"
        shapes |= {
            f"{block}.attn.c_q.weight": (width, width),
            f"{block}.attn.c_k.weight": (kv_dim, width),
            f"{block}.attn.c_v.weight": (kv_dim, width),
            f"{block}.attn.c_proj.weight": (width, width),
            f"{block}.mlp.c_fc.weight": (4 * width, width),
            f"{block}.mlp.c_proj.weight": (width, 4 * width),
        }
        if has_value_embedding(config, generation, layer):
            shapes[f"{block}.attn.ve_gate.weight"] = (config.n_kv_head, generation.value_gate_channels)
            shapes[f"value_embeds.{layer}.weight"] = (num_vocab_rows, kv_dim)
    shapes["lm_head.weight"] = (num_vocab_rows, width)
    return shapes


def estimate_flops_per_token(
    config: ModelConfig, generation: Generation, seq_len: int, *, num_head_tokens: float = 1.0
) -> float:
    """Floating-point operations of a forward and backward pass for one token.

    Six per matrix parameter (2 forward, 4 backward) and twelve per head channel and attended position, as in
    PaLM's model FLOPs utilisation (arXiv 2204.02311, appendix B), with causal attention counted as it is: a position
    sees half the row on average, or its window. Embedding look-ups, norms and gates count nothing.

    Args:
        config: Sizes.
        generation: Decides the windows.
        seq_len: Length of a row, or the mean length of a document.
        num_head_tokens: Share of tokens that the head is computed for (supervised ones only: less than 1).
    """
    width, kv_dim = config.n_embd, config.kv_dim
    block = width * (2 * width + 2 * kv_dim) + 8 * width * width
    attended = 0.0
    for window in compute_windows(config, generation):
        span = seq_len if window is None else min(window + 1, seq_len)
        attended += span * (2 * seq_len - span + 1) / (2 * seq_len)
    head = config.vocab_size * width * num_head_tokens
    return 6.0 * (block * config.n_layer + head) + 12.0 * width * attended
