"""nanochat's model in all five generations, for transformers: what is written here is what is computed.

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

A decoder of the GPT kind, with these particulars. Norms have no parameters; one comes right after the embedding.
Positions are rotary, and queries and keys are normed after they were turned. The MLP's activation is the square of the
ReLU. Head and embedding are two matrices. Logits are softly capped. Over its generations (g1 of October 2025 to g5 of
March 2026) the model learned to scale its stream and to add the embedding again before each block (g2), to add gated
embeddings to the values of every second layer (g3), to sharpen its attention (g4), and to smear each embedding over its
predecessor and take the middle of the stream out at the end (g5). Which of these a model does, its config says.

Parameters have nanochat's own names, all but the head's under `transformer`. Batches may be padded on the left. A cache
must know the config, as `DynamicCache(config=model.config)` does: `generate` makes it so.
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

NORM_EPS = torch.finfo(torch.float32).eps
SMEAR_CHANNELS = 24


class NanochatConfig(PreTrainedConfig):
    """Sizes under nanochat's names, and what the generation computes.

    `windows` says for each layer how many tokens before its own a position sees (null: all). `layer_types` and
    `sliding_window` say the same to transformers' cache; a "hybrid" first layer keeps the smear's last embedding too.
    """

    model_type = "nanochat_generations"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "num_key_value_heads": "n_kv_head",
    }

    generation: str = "g5"
    vocab_size: int = 65536
    n_layer: int = 12
    n_head: int = 6
    n_kv_head: int = 6
    n_embd: int = 768
    max_position_embeddings: int = 2048
    windows: list[int | None] | None = None
    layer_types: list[str] | None = None
    sliding_window: int | None = None
    rotary_base: float = 100_000.0
    qk_scale: float = 1.2
    final_logit_softcapping: float = 15.0
    has_residual_scalars: bool = True
    value_embedding_layers: list[int] | None = None
    value_gate_channels: int = 12
    value_gate_scale: float = 3.0
    has_smear: bool = True
    use_cache: bool = True
    tie_word_embeddings: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None


def norm(x: Tensor) -> Tensor:
    """RMS norm over the last dimension, in float32 whatever the dtype of x."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + NORM_EPS)).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the two halves of each head by its position. x (B, H, T, D); cos, sin (B, 1, T, D/2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), dim=-1)


class Attention(nn.Module):
    """Causal attention within a window; some layers add a gated embedding of the token to its value."""

    def __init__(self, config: NanochatConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.n_embd // config.n_head
        self.gate_channels, self.gate_scale = config.value_gate_channels, config.value_gate_scale
        self.score_scale = config.qk_scale**2 * self.head_dim**-0.5  # the factor on queries and on keys, taken together
        kv_dim = config.n_kv_head * self.head_dim
        self.c_q = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.c_k = nn.Linear(config.n_embd, kv_dim, bias=False)
        self.c_v = nn.Linear(config.n_embd, kv_dim, bias=False)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)
        if layer in (config.value_embedding_layers or ()):
            self.ve_gate = nn.Linear(self.gate_channels, config.n_kv_head, bias=False)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        cos: Tensor,
        sin: Tensor,
        value_embedding: Tensor | None,
        cache: Cache | None,
    ) -> Tensor:
        """What is added to the stream. x (B, T, C), normed; value_embedding (B, T, H_kv * D) or None."""
        heads = (*x.shape[:2], -1, self.head_dim)
        q, k, v = (project(x).view(heads).transpose(1, 2) for project in (self.c_q, self.c_k, self.c_v))
        if value_embedding is not None:
            gate = self.gate_scale * torch.sigmoid(self.ve_gate(x[..., : self.gate_channels]))  # (B, T, H_kv)
            v = v + (gate[..., None] * value_embedding.view(heads)).transpose(1, 2)
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None and q.shape[2] > 1,
            scale=self.score_scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return self.c_proj(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two matrices with a squared ReLU between."""

    def __init__(self, config: NanochatConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """What is added to the stream. x (B, T, C), normed."""
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(GradientCheckpointingLayer):
    """Attention and MLP, each added to the stream."""

    def __init__(self, config: NanochatConfig, layer: int) -> None:
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        cos: Tensor,
        sin: Tensor,
        value_embedding: Tensor | None,
        cache: Cache | None = None,
    ) -> Tensor:
        """The stream after the block. x (B, T, C)."""
        x = x + self.attn(norm(x), mask, cos, sin, value_embedding, cache)
        return x + self.mlp(norm(x))


class MaskConfig:
    """What transformers reads of a config to make one layer's mask."""

    def __init__(self, config: NanochatConfig, window: int | None) -> None:
        self.sliding_window = None if window is None else window + 1  # transformers counts the own token too
        self._attn_implementation = config._attn_implementation  # noqa: SLF001 - transformers' name for it


class NanochatPreTrainedModel(PreTrainedModel):
    """What the model with its head and the one without share."""

    config_class = NanochatConfig
    base_model_prefix = "transformer"
    _supports_sdpa = True
    _can_compile_fullgraph = True
    _no_split_modules: ClassVar[list[str]] = ["Block"]
    supports_gradient_checkpointing = True

    @staticmethod
    def create_masks_for_generate(
        config: NanochatConfig,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        cache: Cache | None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Tensor | None]:
        """A mask for each window that layers have, by the window's number: (B, 1, T, keys), or None for plain causal.

        `generate` calls it ahead of a compiled step.
        """
        del kwargs
        assert config.windows is not None
        masks = {}
        for layer, window in enumerate(config.windows):
            if str(window) in masks:
                continue
            create = create_causal_mask if window is None else create_sliding_window_causal_mask
            masks[str(window)] = create(
                config=MaskConfig(config, window),
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                cache=cache,
                position_ids=position_ids,
                layer_idx=layer,
            )
        return masks


class NanochatModel(NanochatPreTrainedModel):
    """All but the head."""

    def __init__(self, config: NanochatConfig) -> None:
        super().__init__(config)
        kv_dim = config.n_kv_head * (config.n_embd // config.n_head)
        if config.has_residual_scalars:
            self.resid_lambdas = nn.Parameter(torch.ones(config.n_layer))
            self.x0_lambdas = nn.Parameter(torch.zeros(config.n_layer))
        if config.has_smear:
            self.smear_gate = nn.Linear(SMEAR_CHANNELS, 1, bias=False)
            self.smear_lambda = nn.Parameter(torch.zeros(1))
            self.backout_lambda = nn.Parameter(torch.zeros(1))
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.value_embeds = nn.ModuleDict(
            {str(layer): nn.Embedding(config.vocab_size, kv_dim) for layer in config.value_embedding_layers or ()}
        )
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | dict[str, Tensor | None] | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,  # noqa: FBT001 - transformers' signature
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """The last stream, normed: what the head reads, (B, T, C). For the arguments see `NanochatForCausalLM`."""
        del kwargs
        if cache is None and (self.config.use_cache if use_cache is None else use_cache) and not self.training:
            cache = DynamicCache(config=self.config)
        x = norm(self.wte(input_ids))
        if position_ids is None:
            position_ids = self._count_positions(x, attention_mask, cache)
        if isinstance(attention_mask, dict):  # made ahead by `generate`
            masks = attention_mask
        else:
            masks = self.create_masks_for_generate(self.config, x, attention_mask, cache, position_ids)
        if self.config.has_smear:
            x = x + self._smear(x, position_ids, cache)
        first = middle = x
        windows = self.config.windows or ()
        cos, sin = self._compute_rotary(position_ids, x.dtype)
        for layer, block in enumerate(self.h):
            if self.config.has_residual_scalars:
                x = self.resid_lambdas[layer] * x + self.x0_lambdas[layer] * first
            has_table = str(layer) in self.value_embeds
            value_embedding = self.value_embeds[str(layer)](input_ids) if has_table else None
            x = block(x, masks[str(windows[layer])], cos, sin, value_embedding, cache=cache)
            if layer == self.config.n_layer // 2:
                middle = x
        if self.config.has_smear:
            x = x - self.backout_lambda * middle
        return BaseModelOutputWithPast(last_hidden_state=norm(x), cache=cache)

    def get_input_embeddings(self) -> nn.Module:
        """The table of embeddings."""
        return self.wte

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the table of embeddings."""
        self.wte = value

    def _count_positions(
        self, x: Tensor, attention_mask: Tensor | dict[str, Any] | None, cache: Cache | None
    ) -> Tensor:
        """(B, T): how many tokens of its text lie before each; padding counts nothing."""
        length = x.shape[1]
        if isinstance(attention_mask, Tensor) and attention_mask.dim() == 2:  # noqa: PLR2004 - rows and positions
            return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]
        past = cache.get_seq_length() if cache is not None else 0
        return (torch.arange(length, device=x.device) + past)[None].expand(x.shape[0], -1)

    def _smear(self, x: Tensor, position_ids: Tensor, cache: Cache | None) -> Tensor:
        """What each embedding takes over from its predecessor; the first of a text has none. x (B, T, C), normed."""
        seen = x.transpose(1, 2)
        if cache is not None:
            if not cache.layers:
                raise ValueError("the cache must know the model: make it with DynamicCache(config=model.config)")
            seen = cache.update_conv_state(seen, 0, conv_kernel_size=1)  # with the last embedding of before
        previous = F.pad(seen, (1, 0))[..., -x.shape[1] - 1 : -1].transpose(1, 2)
        previous = previous * (position_ids > 0)[..., None]
        return self.smear_lambda * torch.sigmoid(self.smear_gate(x[..., :SMEAR_CHANNELS])) * previous

    def _compute_rotary(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (B, 1, T, D/2) each. Computed in float32, used in the model's dtype."""
        head_dim = self.config.n_embd // self.config.n_head
        channels = torch.arange(0, head_dim, 2, dtype=torch.float32, device=position_ids.device)
        angles = position_ids[:, None, :, None].float() * self.config.rotary_base ** -(channels / head_dim)
        return angles.cos().to(dtype), angles.sin().to(dtype)


class NanochatForCausalLM(NanochatPreTrainedModel, GenerationMixin):
    """The whole model."""

    def __init__(self, config: NanochatConfig) -> None:
        super().__init__(config)
        self.transformer = NanochatModel(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | dict[str, Tensor | None] | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,  # noqa: FBT001 - transformers' signature
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, vocab_size) in float32, and the loss where labels are given.

        Args:
            input_ids: (B, T) tokens; with a cache, those that it does not hold yet.
            attention_mask: (B, T and what the cache holds): 0 on padding, which is left of the text.
            position_ids: (B, T), 0 on each first token (default: counted from the mask). Without mask and cache, the
                texts of a row that each begin at 0 are kept apart.
            cache: Keys and values of earlier tokens.
            labels: (B, T) the same tokens, -100 where no loss is wanted.
            use_cache: Make a cache where none is given.
            logits_to_keep: Compute the last so many logits only, or those at these places; 0: all.
            kwargs: Of the loss.
        """
        outputs = self.transformer(input_ids, attention_mask, position_ids, cache, use_cache)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept]).float()
        logits = self.config.final_logit_softcapping * torch.tanh(logits / self.config.final_logit_softcapping)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits, cache=outputs.cache)
