"""The nanochat model family: tokenizer, rendering, the model in its five generations, checkpoint files, inference.

Importing this package, or its torch-free modules (`tokenizer`, `generations`, `layout`), loads no torch: the names
below are looked up when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from nanosft.nanochat.attention import Documents
    from nanosft.nanochat.checkpoint import (
        Checkpoint,
        load_checkpoint,
        read_optimizer_states,
        save_checkpoint,
        save_tokenizer,
    )
    from nanosft.nanochat.device import resolve_device
    from nanosft.nanochat.generations import GENERATIONS, Generation, ModelConfig, estimate_flops_per_token
    from nanosft.nanochat.inference.batching import Batch, Request, Row, Written
    from nanosft.nanochat.inference.engine import Engine
    from nanosft.nanochat.inference.sampling import Sampling, TokenLogprob
    from nanosft.nanochat.inference.text_stream import TextStream
    from nanosft.nanochat.inference.tools import ToolUse, calculate, evaluate_expression
    from nanosft.nanochat.layout import CheckpointRef, find_checkpoint, find_model_origin
    from nanosft.nanochat.model import GPT
    from nanosft.nanochat.model_cache import open_cached
    from nanosft.nanochat.state_dict import init_model
    from nanosft.nanochat.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

_HOMES: Final = {
    "GENERATIONS": "generations",
    "GPT": "model",
    "Batch": "inference.batching",
    "Checkpoint": "checkpoint",
    "CheckpointRef": "layout",
    "Documents": "attention",
    "Engine": "inference.engine",
    "Generation": "generations",
    "ModelConfig": "generations",
    "Request": "inference.batching",
    "Row": "inference.batching",
    "Sampling": "inference.sampling",
    "TextStream": "inference.text_stream",
    "TokenLogprob": "inference.sampling",
    "Tokenizer": "tokenizer",
    "ToolUse": "inference.tools",
    "Written": "inference.batching",
    "calculate": "inference.tools",
    "estimate_flops_per_token": "generations",
    "evaluate_expression": "inference.tools",
    "find_checkpoint": "layout",
    "find_model_origin": "layout",
    "init_model": "state_dict",
    "load_checkpoint": "checkpoint",
    "load_tokenizer": "tokenizer",
    "open_cached": "model_cache",
    "read_optimizer_states": "checkpoint",
    "resolve_device": "device",
    "save_checkpoint": "checkpoint",
    "save_tokenizer": "checkpoint",
    "train_tokenizer": "tokenizer",
}

__all__ = [
    "GENERATIONS",
    "GPT",
    "Batch",
    "Checkpoint",
    "CheckpointRef",
    "Documents",
    "Engine",
    "Generation",
    "ModelConfig",
    "Request",
    "Row",
    "Sampling",
    "TextStream",
    "TokenLogprob",
    "Tokenizer",
    "ToolUse",
    "Written",
    "calculate",
    "estimate_flops_per_token",
    "evaluate_expression",
    "find_checkpoint",
    "find_model_origin",
    "init_model",
    "load_checkpoint",
    "load_tokenizer",
    "open_cached",
    "read_optimizer_states",
    "resolve_device",
    "save_checkpoint",
    "save_tokenizer",
    "train_tokenizer",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__
