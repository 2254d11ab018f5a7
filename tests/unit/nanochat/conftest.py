"""Golden files of nanochat's own, and small models of every generation."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nanosft.nanochat import GENERATIONS, GPT, Checkpoint, Generation, ModelConfig, load_checkpoint

GOLDEN = Path(__file__).parents[2] / "golden" / "nanochat"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # workers share the cores: two waiting for each other take 20 times as long


@pytest.fixture
def golden() -> Path:
    return GOLDEN


@pytest.fixture
def load_golden() -> Callable[[str], tuple[Checkpoint, dict[str, Any]]]:
    """A generation's checkpoint, and what nanochat computed from it."""

    def load(name: str) -> tuple[Checkpoint, dict[str, Any]]:
        computed = torch.load(GOLDEN / name / "forward.pt", weights_only=True)
        return load_checkpoint(str(GOLDEN / name)), computed

    return load


SMALL = ModelConfig(sequence_len=12, vocab_size=90, n_layer=4, n_head=4, n_kv_head=2, n_embd=128, window_pattern="SSL")


def make_model(
    name: str,
    *,
    config: ModelConfig = SMALL,
    generation: Generation | None = None,
    padded: bool = True,
    seed: int = 0,
) -> GPT:
    """A model, every parameter non-trivial; short windows are not rounded up, so that they really are short."""
    generation = generation or replace(GENERATIONS[name], rounds_short_window=False)
    model = GPT(config, generation, num_vocab_rows=None if padded else config.vocab_size)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.2, 1.2, generator=generator)
            else:
                parameter.normal_(0.0, 1.0 / parameter.shape[-1] ** 0.5, generator=generator)
    return model
