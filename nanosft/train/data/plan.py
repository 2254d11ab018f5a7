"""The step plan: which packed rows each step trains, known before the first one. Pure functions.

A global batch is a number of packed rows, whatever the number of ranks: rank r of n takes rows r, r + n, … of it. So
any world size that divides the rows of a batch trains the same batches, and every rank has the same number of steps.
"""

from dataclasses import dataclass

import numpy as np

from nanosft.errors import ConfigError, DataError
from nanosft.packing import IntArray, PackedRows, from_rows, pack_epoch
from nanosft.train.data.tokens import TokenSet


@dataclass(frozen=True, slots=True)
class StepPlan:
    """All steps of a run.

    Attributes:
        rows: The packed rows in the order of training, over all epochs.
        rows_per_step: Rows of a global batch; the last one of the run may have fewer.
        num_supervised: (num_steps,) supervised tokens of each global batch.
        num_tokens: (num_steps,) tokens of each, padding not counted.
        capacity: Tokens of a row.
    """

    rows: PackedRows
    rows_per_step: int
    num_supervised: IntArray
    num_tokens: IntArray
    capacity: int

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return len(self.num_supervised)

    @property
    def padding(self) -> float:
        """Fraction of the rows' tokens that is padding."""
        return 1.0 - float(self.num_tokens.sum()) / (len(self.rows) * self.capacity)

    def step_rows(self, step: int) -> range:
        """The rows of a step's global batch."""
        start = step * self.rows_per_step
        return range(start, min(start + self.rows_per_step, len(self.rows)))

    def micro_batches(self, step: int, *, rank: int, world_size: int, device_rows: int) -> list[range]:
        """The rows of each micro-batch of a rank: as many micro-batches on every rank, some of them perhaps empty."""
        rows = self.step_rows(step)
        return split_rows(rows, rank=rank, world_size=world_size, device_rows=device_rows)


def split_rows(rows: range, *, rank: int, world_size: int, device_rows: int) -> list[range]:
    """A rank's share of `rows` in micro-batches of at most `device_rows`, equally many of them on every rank."""
    own = rows[rank::world_size]
    most = -(-len(rows) // world_size)
    return [own[start : start + device_rows] for start in range(0, most, device_rows)]


def plan_steps(
    tokens: TokenSet,
    *,
    capacity: int,
    rows_per_step: int,
    epochs: int,
    max_steps: int | None,
    seed: int,
    window: int,
) -> StepPlan:
    """Pack as many epochs as the run takes and cut them into steps.

    Args:
        tokens: The conversations; none longer than `capacity`.
        capacity: Tokens of a row: the model's row length and one, for the last target.
        rows_per_step: Rows of a global batch.
        epochs: Passes over the data, unless `max_steps` says how long the run is.
        max_steps: Number of steps, or None.
        seed: Seed of the order.
        window: See `packing.pack_epoch`.

    Raises:
        DataError: There is nothing to train, or a batch has no supervised token.
    """
    lengths, supervised = tokens.lengths, tokens.supervised
    if not len(lengths):
        raise DataError("no conversation is left to train on: check --data, --overlong and --max-seq-len")
    rows: list[IntArray] = []
    epoch = 0
    while epoch < epochs if max_steps is None else len(rows) < max_steps * rows_per_step:
        packed = pack_epoch(lengths, capacity, seed=seed, epoch=epoch, window=window)
        rows += [packed.row(index) for index in range(len(packed))]
        epoch += 1
    if max_steps is not None:
        del rows[max_steps * rows_per_step :]
    packed = from_rows(rows)
    starts = np.arange(0, len(packed), rows_per_step)
    first_items = packed.offsets[starts]
    num_supervised = np.add.reduceat(supervised[packed.items], first_items)
    num_tokens = np.add.reduceat(lengths[packed.items], first_items)
    empty = np.flatnonzero(num_supervised == 0)
    if len(empty):
        names = [tokens.name_of(int(item)) for item in packed.row(int(starts[empty[0]]))[:4]]
        raise DataError(
            f"step {int(empty[0]) + 1} has no supervised token (conversations {', '.join(names)}): "
            "raise --total-batch-size, or take these conversations out"
        )
    return StepPlan(packed, rows_per_step, num_supervised, num_tokens, capacity)


def count_rows_per_step(total_batch_size: int, max_seq_len: int, world_size: int) -> int:
    """Rows of a global batch.

    Raises:
        ConfigError: The batch is no whole number of rows, or the ranks do not divide them.
    """
    rows, rest = divmod(total_batch_size, max_seq_len)
    if rest or not rows:
        near = max(1, round(total_batch_size / max_seq_len)) * max_seq_len
        raise ConfigError(
            f"--total-batch-size {total_batch_size} is no multiple of --max-seq-len {max_seq_len}: choose {near}"
        )
    if rows % world_size:
        near = -(-rows // world_size) * world_size * max_seq_len
        raise ConfigError(
            f"{world_size} ranks do not divide the {rows} rows of a batch evenly: choose --total-batch-size {near}"
        )
    return rows
