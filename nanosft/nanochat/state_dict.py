"""Models with values in them: from a state dict of nanochat's, checked key by key, or new."""

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from nanosft.errors import DataError
from nanosft.nanochat.generations import Generation, ModelConfig, detect_generation, name_some, parameter_shapes
from nanosft.nanochat.model import GPT

_WRAPPERS: Final = frozenset({"module", "_orig_mod"})
"""What DistributedDataParallel and torch.compile put into keys: before them, or before the part that was wrapped."""


def model_from_state_dict(
    state: Mapping[str, Tensor],
    config: ModelConfig,
    *,
    where: str,
    generation: Generation | None = None,
    compute_dtype: torch.dtype = torch.float32,
) -> GPT:
    """Build the model that a state dict holds.

    Keys may carry the prefixes `module.` and `_orig_mod.`, tensors may be bfloat16 and the vocabulary padded or not;
    the parameters are float32 afterwards and share the memory of float32 tensors in `state`.

    Args:
        state: nanochat's state dict.
        config: From the meta file beside it.
        where: The URI of the file, for errors.
        generation: None: told by the keys.
        compute_dtype: See `GPT`.

    Raises:
        DataError: A key is missing, unknown, or has another shape than `config` says.
    """
    tensors = {".".join(part for part in key.split(".") if part not in _WRAPPERS): state[key] for key in state}
    if len(tensors) < len(state):
        raise DataError(
            f"{where}: holds {len(state) - len(tensors)} keys twice, with module. or _orig_mod. and without"
        )
    if generation is None:
        gates = [tuple(tensor.shape) for key, tensor in tensors.items() if key.endswith("ve_gate.weight")]
        generation = detect_generation(tensors, gates[0] if gates else None, where=where)
    embedding = tensors.get("transformer.wte.weight")
    num_rows = embedding.shape[0] if embedding is not None and embedding.dim() > 0 else config.vocab_size
    if num_rows not in {config.vocab_size, config.padded_vocab_size}:
        raise DataError(
            f"{where}: the embedding has {num_rows} rows, model_config's vocab_size is {config.vocab_size}: "
            f"expected that many, or {config.padded_vocab_size} with padding"
        )
    _check_shapes(tensors, parameter_shapes(config, generation, num_rows), f"{where}: as {generation.name}")
    with torch.device("meta"):
        model = GPT(config, generation, num_vocab_rows=num_rows, compute_dtype=compute_dtype)
    model.load_state_dict({key: tensor.float() for key, tensor in tensors.items()}, assign=True)
    return model.requires_grad_()


def init_model(
    config: ModelConfig, generation: Generation, seed: int, *, compute_dtype: torch.dtype = torch.float32
) -> GPT:
    """A new model to pretrain, a function of its arguments.

    Every block starts as the identity (its last matrices are zero), the other matrices preserve variance, logits start
    near zero, and gates start at rest.
    """
    model = GPT(config, generation, compute_dtype=compute_dtype)
    generator = torch.Generator().manual_seed(seed)
    constants = {"resid_lambdas": 1.0, "x0_lambdas": 0.1, "smear_lambda": 0.0, "backout_lambda": 0.1}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in constants:
                parameter.fill_(constants[name])
            elif name.endswith("c_proj.weight") or "gate" in name:
                parameter.zero_()
            elif name == "lm_head.weight":
                parameter.normal_(0.0, 1e-3, generator=generator)
            elif name == "transformer.wte.weight":
                parameter.normal_(0.0, 1.0, generator=generator)
            else:
                parameter.normal_(0.0, 1.0 / math.sqrt(config.n_embd), generator=generator)
    return model


def _check_shapes(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    missing, unknown = sorted(set(shapes) - set(tensors)), sorted(set(tensors) - set(shapes))
    if missing or unknown:
        problems = [f"{kind} {name_some(keys)}" for kind, keys in (("unknown", unknown), ("missing", missing)) if keys]
        note = ": its model may compute something else" if unknown else ""
        raise DataError(f"{where}: {'; '.join(problems)}{note}")
    for key, shape in shapes.items():
        if tuple(tensors[key].shape) != shape:
            raise DataError(f"{where}: {key} has shape {tuple(tensors[key].shape)}, model_config says {shape}")
        if not tensors[key].is_floating_point():
            raise DataError(f"{where}: {key} has dtype {tensors[key].dtype}, expected floating point")
