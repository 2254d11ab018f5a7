"""How many rows of a micro-batch fit into a GPU's memory: found once by trying, and kept in the states."""

import logging
from collections.abc import Callable
from typing import Final

import torch

from nanosft.distributed import World
from nanosft.errors import ConfigError
from nanosft.train.batch import TrainingSet
from nanosft.train.step import LossModule, compute_gradients

_USABLE: Final = 0.9
"""Of the memory that is there; what the optimizer's update takes for a moment, and fragments, need the rest."""
_log = logging.getLogger(__name__)


def choose_device_rows(
    asked: int | str | None,
    *,
    default: int,
    kept: int,
    limit: int,
    world: World,
    fits: Callable[[int], bool],
) -> int:
    """Most rows of a micro-batch on one rank, the same on all ranks. Results do not depend on it.

    Args:
        asked: A number; "auto"; or None: "auto" on CUDA, else the default.
        default: What the base was trained with.
        kept: What an earlier attempt of the run found; 0 before the first.
        limit: Rows that a rank has of a step.
        world: The ranks; the one with the least room decides.
        fits: Whether a micro-batch of so many rows fits into this rank's memory.

    Raises:
        ConfigError: Not even one row fits.
    """
    if isinstance(asked, int):
        return asked
    if world.device.type != "cuda":
        return default
    if kept:
        _log.info("micro-batches of %d rows: as the run began", kept)
        return kept
    found = min(world.gather(find_largest_power(fits, limit)))
    if not found:
        raise ConfigError("not even one row fits into this GPU's memory: lower --max-seq-len, or take a smaller base")
    _log.info("micro-batches of %d rows: the largest power of two that fits into memory", found)
    return found


def find_largest_power(fits: Callable[[int], bool], limit: int) -> int:
    """The largest power of two up to `limit` that fits, where less fits if more does; 0 where 1 does not."""
    found, num = 0, 1
    while num <= max(1, limit) and fits(num):
        found, num = num, 2 * num
    return found


def fits_into_memory(module: LossModule, training: TrainingSet, num: int, device: torch.device) -> bool:
    """Whether forward and backward pass of the run's first `num` rows leave a tenth of a GPU's memory free.

    Gradients are gone afterwards. The ranks try alone, so that one that fails keeps no other waiting.
    """
    numbers = [number % len(training.plan.rows) for number in range(num)]
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        batch = training.builder.build(numbers).to(device)
        compute_gradients(module, [batch], num_supervised=max(1, len(batch.labels)))
    except torch.OutOfMemoryError:
        return False
    finally:
        module.zero_grad(set_to_none=True)
    free_bytes, _ = torch.cuda.mem_get_info(device)
    ours_bytes = torch.cuda.memory_reserved(device)  # others' share of the GPU is not ours to take
    return torch.cuda.max_memory_allocated(device) <= _USABLE * (free_bytes + ours_bytes)
