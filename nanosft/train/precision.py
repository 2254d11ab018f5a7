"""What a run computes in: what is asked for, what its states were made in, or what pays on this machine."""

import logging
import time
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from nanosft.nanochat.checkpoint import choose_compute_dtype
from nanosft.nanochat.generations import ModelConfig

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_NUM_TOKENS: Final = 256
_MEASURE_S: Final = 0.1
_WORTH: Final = 1.5
"""How many times as fast bfloat16 has to be. Nearer to one, chance would choose, and two runs alike would differ."""
_log = logging.getLogger(__name__)


def choose_dtype(name: str, config: ModelConfig, device: torch.device, *, kept: str = "") -> torch.dtype:
    """The compute dtype of a run, and a line in the log that says why.

    Args:
        name: What is asked for: "float32", "bfloat16" or "auto".
        config: Sizes of the model.
        device: Where it computes.
        kept: What a state of the run was made in; it decides over the machine, so that a resumed run goes on in what
            it began with.
    """
    if name != "auto":
        return DTYPES[name]
    if kept in DTYPES:
        _log.info("%s: as the run began", kept)
        return DTYPES[kept]
    if device.type != "cpu":
        return choose_compute_dtype(device)
    seconds = measure_products(config)
    ratio = seconds["float32"] / seconds["bfloat16"]
    chosen = "bfloat16" if ratio >= _WORTH else "float32"
    _log.info("%s: this CPU multiplies bfloat16 %.1f times as fast as float32", chosen, ratio)
    return DTYPES[chosen]


def measure_products(config: ModelConfig) -> dict[str, float]:
    """Seconds that the three products of the MLP's first matrix take on this CPU, by dtype, casts included.

    The least of the rounds that fit into a tenth of a second, the dtypes in turns, so that what else the machine does
    at the time strikes both. The first round of each does not count.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4 * config.n_embd, config.n_embd, generator=generator)
    works = {name: _products(weight, dtype) for name, dtype in DTYPES.items()}
    for work in works.values():
        work()
    best = dict.fromkeys(works, float("inf"))
    end_s = time.perf_counter() + _MEASURE_S
    while True:
        for name, work in works.items():
            start_s = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - start_s)
        if time.perf_counter() >= end_s:
            return best


def _products(weight: Tensor, dtype: torch.dtype) -> Callable[[], Tensor]:
    """Forward and backward products as a step makes them: the float32 weight is cast for each."""
    num_out, num_in = weight.shape
    x, grad = torch.ones(_NUM_TOKENS, num_in, dtype=dtype), torch.ones(_NUM_TOKENS, num_out, dtype=dtype)

    def multiply() -> Tensor:
        rows = weight.to(dtype)
        return (x @ rows.mT).sum() + (grad @ rows).sum() + (grad.mT @ x).sum()

    return multiply
