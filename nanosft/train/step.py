"""The train step: forward and backward over the micro-batches of a global batch, checks, and the update.

    module = LossModule(model)
    optimizer = MuonAdamW(group_parameters(model, OptimizerConfig(), width=model.config.n_embd))
    result = train_step(module, optimizer, [batch_from_rows(ids)], num_supervised=n, lr_scale=0.8, momentum=0.85)

The loss of a step is the sum of the token losses of the whole global batch over its supervised tokens, whatever the
number of ranks and micro-batches it was cut into.
"""

import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nanosft.distributed import World, lost_ranks
from nanosft.errors import TrainError
from nanosft.nanochat.model import GPT
from nanosft.train.batch import MicroBatch, empty_micro_batch
from nanosft.train.loss import sum_losses, token_losses
from nanosft.train.optim import MuonAdamW


class LossModule(nn.Module):
    """A model and its loss: what is run and replicated as one.

    Args:
        model: The model.
        compiled: Whether the loss's steps between the products are compiled, and on a GPU the model's blocks; on a CPU
            attention is a loop that the compiler would unroll for every batch.
    """

    def __init__(self, model: GPT, *, compiled: bool = False) -> None:
        super().__init__()
        self.model = model
        self._compiled = compiled
        if compiled and model.device.type != "cpu":
            model.compile_blocks()

    def forward(self, batch: MicroBatch) -> Tensor:
        """The sum of the batch's token losses: () float32."""
        head = self.model.lm_head.weight
        settings = self._head_settings()
        return sum_losses(self._hidden(batch), head, batch.labels, compiled=self._compiled, **settings)

    @torch.no_grad()
    def token_losses(self, batch: MicroBatch) -> Tensor:
        """The loss of each supervised token: (S,) float32."""
        return token_losses(self._hidden(batch), self.model.lm_head.weight, batch.labels, **self._head_settings())

    def _hidden(self, batch: MicroBatch) -> Tensor:
        hidden = self.model.hidden(batch.ids, documents=batch.documents)
        return hidden.flatten(0, 1).index_select(0, batch.supervised)

    def _head_settings(self) -> dict[str, Any]:
        return {"vocab_size": self.model.config.vocab_size, "softcap": self.model.generation.softcap}


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did.

    Attributes:
        loss: Mean over the supervised tokens of the global batch, in nats.
        grad_norms: L2 norm of the gradient of each optimizer group.
        sums: What the ranks' `summands` add up to.
    """

    loss: float
    grad_norms: dict[str, float]
    sums: tuple[float, ...] = ()


class NonFiniteError(TrainError):
    """A loss or a gradient is not finite; no parameter was changed by the step.

    Args:
        message: What is not finite.
        rows: The packed rows it came from; those of the whole global batch where no single micro-batch shows it.
    """

    def __init__(self, message: str, rows: Sequence[int]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


def replicate(module: LossModule, world: World) -> nn.Module:
    """The module with its gradients averaged over the ranks while the backward pass runs.

    DDP rebuilds its buckets after its first backward pass, and where a sum of three ranks' gradients is cut decides
    its rounding: a resumed run, whose first step is another one, would differ from an uninterrupted one. Two empty
    passes here put that behind us, so the buckets are the same from the first step on.
    """
    if world.size == 1:
        return module
    with lost_ranks():
        replica = DistributedDataParallel(
            module,
            device_ids=[world.device.index] if world.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
        )
        for _ in range(2):
            torch.autograd.backward(replica(empty_micro_batch(0).to(world.device)))
    replica.zero_grad()
    return replica


def train_step(
    module: nn.Module,
    optimizer: MuonAdamW,
    batches: Sequence[MicroBatch],
    *,
    num_supervised: int,
    lr_scale: float,
    momentum: float,
    world: World = World(),  # noqa: B008 - immutable
    summands: Sequence[float] = (),
) -> StepResult:
    """Train one global batch.

    Args:
        module: A `LossModule`, or what `replicate` made of it.
        optimizer: Updates its parameters.
        batches: This rank's micro-batches; as many on every rank, some perhaps empty.
        num_supervised: Supervised tokens of the global batch, over all ranks.
        lr_scale: What all learning rates are multiplied by.
        momentum: Muon's.
        world: This rank among all.
        summands: Numbers to be summed over the ranks along the way, at no cost of their own.

    Raises:
        NonFiniteError: The loss or a gradient is not finite; nothing was updated.
        LostRankError: Another rank is gone.
    """
    losses = compute_gradients(module, batches, num_supervised=num_supervised, world=world)
    squares = {group.name: _sum_of_squares(optimizer.owned(group).values()) for group in optimizer.groups}
    sums = torch.stack([losses.sum(), *squares.values()]).cpu().double()
    totals = world.sum(torch.cat([sums, torch.tensor([*summands], dtype=torch.float64)])).tolist()
    loss, norms = totals[0] / num_supervised, [math.sqrt(total) for total in totals[1 : 1 + len(squares)]]
    if not math.isfinite(loss) or not all(map(math.isfinite, norms)):
        bad = [name for name, norm in zip(squares, norms, strict=True) if not math.isfinite(norm)]
        what = f"gradient of {', '.join(bad)}" if math.isfinite(loss) else "loss"
        raise NonFiniteError(f"the {what} is not finite", _find_suspects(batches, losses, world))
    with lost_ranks():
        optimizer.step(lr_scale=lr_scale, momentum=momentum)
    for group in optimizer.groups:
        for param in group.params.values():
            param.grad = None
    return StepResult(loss, dict(zip(squares, norms, strict=True)), tuple(totals[1 + len(squares) :]))


def compute_gradients(
    module: nn.Module,
    batches: Sequence[MicroBatch],
    *,
    num_supervised: int,
    world: World = World(),  # noqa: B008
) -> Tensor:
    """Leave the gradient of the global batch's mean loss in `.grad`, on every rank.

    Returns:
        (num_micro_batches,) float32: the sum of the token losses of each of this rank's micro-batches.
    """
    losses = []
    for index, batch in enumerate(batches):
        is_last = index == len(batches) - 1
        if not len(batch.rows) and not (is_last and world.size > 1):
            continue  # nothing to add, and no other rank waits for it
        with lost_ranks(), _without_sync(module) if not is_last else contextlib.nullcontext():
            total: Tensor = module(batch)
            torch.autograd.backward(total * (world.size / num_supervised))  # DDP divides by the number of ranks
        losses.append(total.detach())
    return torch.stack(losses)


def _without_sync(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Gradients of all but the last micro-batch are kept back, to be summed over the ranks once."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else contextlib.nullcontext()


def _sum_of_squares(params: Iterable[nn.Parameter]) -> Tensor:
    grads = [param.grad for param in params if param.grad is not None]
    if not grads:
        return torch.zeros((), dtype=torch.float64)
    norms = torch._foreach_norm(grads)  # noqa: SLF001 - as torch.nn.utils does
    norms_of = torch.stack(norms)
    return (norms_of if norms_of.device.type == "mps" else norms_of.double()).square().sum()


def _find_suspects(batches: Sequence[MicroBatch], losses: Tensor, world: World) -> list[int]:
    """Rows of the micro-batches whose loss is not finite, on any rank; of all where each one's is."""
    own = [batch for batch in batches if len(batch.rows)]
    bad = [batch for batch, value in zip(own, losses.tolist(), strict=False) if not math.isfinite(value)]
    for found in ([row for batch in bad for row in batch.rows], [row for batch in own for row in batch.rows]):
        rows = sorted(row for rows in world.gather(found) for row in rows)
        if rows:
            return rows
    return []
