"""A checkpoint as transformers reads it: tensors under its names, and the content of `config.json`.

The first generation is one that transformers knows as NanoChat; the others go with a modeling file of ours.
"""

from typing import Any, Final

import torch
from torch import Tensor

from nanosft.nanochat import Checkpoint
from nanosft.nanochat.generations import compute_windows, has_value_embedding

REMOTE_MODULE: Final = "modeling_nanochat_generations"
"""The file beside `config.json` that holds the model's code, without its suffix."""

_TABLES: Final = ("transformer.wte.", "lm_head.", "value_embeds.")
_NATIVE_NAMES: Final = (
    ("transformer.wte.", "model.embed_tokens."),
    ("transformer.h.", "model.layers."),
    (".attn.c_q.", ".self_attn.q_proj."),
    (".attn.c_k.", ".self_attn.k_proj."),
    (".attn.c_v.", ".self_attn.v_proj."),
    (".attn.c_proj.", ".self_attn.o_proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)


def is_native(checkpoint: Checkpoint) -> bool:
    """Whether transformers' own class computes this model: the first generation, without windows."""
    config, generation = checkpoint.model.config, checkpoint.generation
    return generation.name == "g1" and set(compute_windows(config, generation)) == {None}


def convert_tensors(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every parameter on the CPU, tables cut to the vocabulary, under the names of the class that will load them."""
    tensors = {}
    vocab_size = checkpoint.model.config.vocab_size
    for key, tensor in checkpoint.model.state_dict().items():
        name = key
        if is_native(checkpoint):
            for ours, theirs in _NATIVE_NAMES:
                name = name.replace(ours, theirs)
        elif not key.startswith(("transformer.", "lm_head.")):
            name = f"transformer.{key}"
        kept = tensor[:vocab_size] if key.startswith(_TABLES) else tensor
        tensors[name] = kept.detach().to("cpu", dtype).contiguous()
    return tensors


def make_config(checkpoint: Checkpoint, dtype: torch.dtype, *, transformers_version: str) -> dict[str, Any]:
    """The content of `config.json`."""
    tokenizer = checkpoint.tokenizer
    return {
        **(_native_config(checkpoint) if is_native(checkpoint) else _remote_config(checkpoint)),
        "vocab_size": checkpoint.model.config.vocab_size,
        "max_position_embeddings": checkpoint.context_len,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.assistant_end_id,
        "pad_token_id": tokenizer.bos_id,
        "tie_word_embeddings": False,
        "dtype": str(dtype).removeprefix("torch."),
        "transformers_version": transformers_version,
    }


def _native_config(checkpoint: Checkpoint) -> dict[str, Any]:
    config, generation = checkpoint.model.config, checkpoint.generation
    return {
        "architectures": ["NanoChatForCausalLM"],
        "model_type": "nanochat",
        "hidden_size": config.n_embd,
        "intermediate_size": 4 * config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "hidden_act": "relu2",
        "rms_norm_eps": torch.finfo(torch.float32).eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": generation.rotary_base},
        "final_logit_softcapping": generation.softcap,
        "attention_bias": False,
        "attention_dropout": 0.0,
    }


def _remote_config(checkpoint: Checkpoint) -> dict[str, Any]:
    config, generation = checkpoint.model.config, checkpoint.generation
    windows = compute_windows(config, generation)
    sliding = [window is not None and window < config.sequence_len for window in windows]
    kinds = ["sliding_attention" if is_short else "full_attention" for is_short in sliding]
    if generation.has_smear:
        kinds[0] = "hybrid_sliding" if sliding[0] else "hybrid"
    own_window = generation.short_window(config.sequence_len) + 1  # transformers counts the own token too
    return {
        "architectures": ["NanochatForCausalLM"],
        "auto_map": {
            "AutoConfig": f"{REMOTE_MODULE}.NanochatConfig",
            "AutoModel": f"{REMOTE_MODULE}.NanochatModel",
            "AutoModelForCausalLM": f"{REMOTE_MODULE}.NanochatForCausalLM",
        },
        "model_type": "nanochat_generations",
        "generation": generation.name,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_kv_head": config.n_kv_head,
        "windows": list(windows),
        "layer_types": kinds,
        "sliding_window": own_window if any(sliding) else None,
        "rotary_base": generation.rotary_base,
        "qk_scale": generation.qk_scale,
        "final_logit_softcapping": generation.softcap,
        "has_residual_scalars": generation.has_residual_scalars,
        "value_embedding_layers": [
            layer for layer in range(config.n_layer) if has_value_embedding(config, generation, layer)
        ],
        "value_gate_channels": generation.value_gate_channels,
        "value_gate_scale": generation.value_gate_scale,
        "has_smear": generation.has_smear,
    }
