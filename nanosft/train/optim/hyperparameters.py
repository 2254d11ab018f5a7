"""Hyperparameters of a run: what the settings say, else what the base was trained with, as in nanochat. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nanosft.nanochat.meta_file import look_up_row_len, look_up_size
from nanosft.settings.train import TrainSettings
from nanosft.train.optim.optimizer import OptimizerConfig
from nanosft.train.optim.schedule import Schedule

_DEFAULT_DEVICE_ROWS: Final = 32
_DEFAULT_TOTAL_BATCH_SIZE: Final = 524_288
_DEFAULT_MATRIX_LR: Final = 0.02
_DEFAULT_EMBEDDING_LR: Final = 0.3
_DEFAULT_UNEMBEDDING_LR: Final = 0.004


@dataclass(frozen=True, slots=True)
class HyperParameters:
    """What a run trains with.

    Attributes:
        row_len: Tokens of a packed row that the model sees.
        device_rows: Most rows of a micro-batch on one rank, where they are not measured.
        total_batch_size: Tokens of a global batch.
        optimizer: Learning rates and decay.
        schedule: What scales them.
    """

    row_len: int
    device_rows: int
    total_batch_size: int
    optimizer: OptimizerConfig
    schedule: Schedule

    @property
    def capacity(self) -> int:
        """Tokens of a packed row: those that the model sees, and the last target."""
        return self.row_len + 1

    @classmethod
    def resolve(cls, settings: TrainSettings, meta: Mapping[str, Any], *, where: str) -> "HyperParameters":
        """Settings over the base's meta file over nanochat's defaults.

        Args:
            settings: What was asked for.
            meta: The base's meta file.
            where: Its URI, for errors.

        Where an old meta file does not say how long rows or how large batches were, rows are as long as the model's
        context, and the rest is what nanochat's base_train had as default in all of its generations.

        Raises:
            ConfigError: Neither says how long rows are.
        """
        user = meta.get("user_config")
        found = {**(user if isinstance(user, dict) else {}), **meta}

        def rate(name: str, given: float | None, default: float) -> float:
            value = given if given is not None else found.get(name)
            return float(value) if isinstance(value, int | float) and value > 0 else default

        rows = settings.device_batch_size
        return cls(
            row_len=look_up_row_len(meta, settings.max_seq_len, where=where),
            device_rows=look_up_size(
                meta,
                "device_batch_size",
                rows if isinstance(rows, int) else None,
                default=_DEFAULT_DEVICE_ROWS,
                where=where,
            ),
            total_batch_size=look_up_size(
                meta, "total_batch_size", settings.total_batch_size, default=_DEFAULT_TOTAL_BATCH_SIZE, where=where
            ),
            optimizer=OptimizerConfig(
                matrix_lr=rate("matrix_lr", settings.matrix_lr, _DEFAULT_MATRIX_LR),
                embedding_lr=rate("embedding_lr", settings.embedding_lr, _DEFAULT_EMBEDDING_LR),
                unembedding_lr=rate("unembedding_lr", settings.unembedding_lr, _DEFAULT_UNEMBEDDING_LR),
                scalar_lr=settings.scalar_lr,
                weight_decay=settings.weight_decay,
            ),
            schedule=Schedule(
                init_lr_frac=settings.init_lr_frac,
                warmup_steps=settings.warmup_steps,
                warmdown_frac=settings.warmdown_frac,
                final_lr_frac=settings.final_lr_frac,
                shape=settings.lr_shape,
            ),
        )
