"""From settings, base and data to what the loop works with: micro-batches, the validation set, FLOPs of a token."""

import io
import logging
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from nanosft.errors import ConfigError, DataError
from nanosft.nanochat.checkpoint import Checkpoint, load_torch
from nanosft.nanochat.generations import estimate_flops_per_token
from nanosft.nanochat.layout import TOKEN_BYTES_KEY
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from nanosft.train.batch import MicroBatch, build_micro_batch
from nanosft.train.data.dataset import Data
from nanosft.train.data.packing import pack_in_order
from nanosft.train.data.plan import StepPlan
from nanosft.train.distributed import World
from nanosft.train.evaluate import ValidationSet
from nanosft.train.optim.hyperparameters import HyperParameters

_LENGTH_MULTIPLE: Final = 256
"""Flattened batches on CUDA are filled up to a multiple of this: kernels and allocator see few lengths."""
_log = logging.getLogger(__name__)


def _uses_dense_mask(base: Checkpoint, world: World) -> bool:
    return world.device.type == "cuda" and base.model.compute_dtype == torch.float32


def make_builder(
    settings: TrainSettings, hyper: HyperParameters, data: Data, plan: StepPlan, base: Checkpoint, world: World
) -> Callable[[int], list[MicroBatch]]:
    """A function from a step to this rank's micro-batches, on its device."""

    def build(step: int) -> list[MicroBatch]:
        shares = plan.micro_batches(step, rank=world.rank, world_size=world.size, device_rows=hyper.device_rows)
        return [
            build_micro_batch(
                data.train,
                [plan.rows.row(row) for row in rows],
                row_len=hyper.row_len,
                attention=settings.attention,
                pad_id=base.tokenizer.bos_id,
                fixed_shape=_uses_dense_mask(base, world),
                multiple=_LENGTH_MULTIPLE if world.device.type == "cuda" else 1,
                row_numbers=rows,
            ).to(world.device)
            for rows in shares
        ]

    return build


def make_validation(
    settings: TrainSettings, hyper: HyperParameters, data: Data, base: Checkpoint, world: World
) -> ValidationSet | None:
    """The packed validation set, or None where there is no data for it.

    Raises:
        ConfigError: There is none, and the run is to stop early by it.
        DataError: The base's table of token lengths is not of its tokenizer.
    """
    if data.val is None or not len(data.val):
        if settings.early_stop:
            raise ConfigError("--early-stop needs validation data: give --val-data, or train on what mix made")
        if world.is_first:
            _log.warning("no validation data: give --val-data, or train on what mix made")
        return None
    rows = pack_in_order(data.val.lengths, hyper.row_len + 1)
    if settings.eval_rows is not None:
        rows = rows.take(np.arange(min(settings.eval_rows, len(rows))))
    return ValidationSet(
        data.val,
        rows,
        world.run_on_all_ranks(lambda: _token_bytes(settings, base)),
        hyper.row_len,
        settings.attention,
        base.tokenizer.bos_id,
        hyper.device_rows,
        _uses_dense_mask(base, world),
    )


def _token_bytes(settings: TrainSettings, base: Checkpoint) -> npt.NDArray[np.int64]:
    """From the base's token_bytes.pt, or computed where it has none."""
    store = open_store(settings.base)
    if not store.exists(TOKEN_BYTES_KEY):
        return np.array(base.tokenizer.token_bytes(), np.int64)
    where = store.uri_of(TOKEN_BYTES_KEY)
    table = load_torch(io.BytesIO(store.read(TOKEN_BYTES_KEY)), where)
    if not isinstance(table, torch.Tensor) or table.shape != (base.tokenizer.vocab_size,):
        raise DataError(f"{where}: not a table of the lengths of {base.tokenizer.vocab_size} tokens: delete it")
    return np.asarray(table.numpy(), np.int64)


def flops_per_token(settings: TrainSettings, hyper: HyperParameters, data: Data, base: Checkpoint) -> float:
    """Floating-point operations of forward and backward pass for one token of this data, on average."""
    span = data.train.lengths.mean() if settings.attention == "document" else hyper.row_len
    share = data.train.supervised.sum() / data.train.lengths.sum()
    model = base.model
    return estimate_flops_per_token(model.config, model.generation, round(span), num_head_tokens=float(share))
