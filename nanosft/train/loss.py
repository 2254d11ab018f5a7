"""The head and its loss, computed for supervised positions only and in chunks.

Logits of all positions would be (tokens x vocabulary) in float32: 2 GiB for 8 rows of 2,048 tokens and a vocabulary of
32,768, and as much again for the gradient. Here a chunk's logits are made, used for loss and gradient, and forgotten.
The gradient is computed in the forward pass (the loss is a plain sum, so it is known up to one factor), which saves
making the logits again in the backward pass.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor

CHUNK_TOKENS: Final = 1024
"""Positions whose logits exist at a time."""


def sum_losses(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    vocab_size: int,
    softcap: float,
    chunk: int = CHUNK_TOKENS,
    compiled: bool = False,
) -> Tensor:
    """Sum of the cross-entropies of all positions, differentiable in `hidden` and `weight`.

    Args:
        hidden: (N, C) normed hidden states of supervised positions; its dtype is the compute dtype.
        weight: (V, C) float32 rows of the head, padding rows included.
        targets: (N,) int64, all in [0, vocab_size).
        vocab_size: Logits beyond it do not exist.
        softcap: Logits are `softcap * tanh(logits / softcap)`.
        chunk: Positions at a time.
        compiled: Whether the steps between the products are one compiled kernel.

    Returns:
        () float32. Zero for N = 0, with zero gradients.
    """
    total: Tensor = _HeadLoss.apply(hidden, weight, targets, vocab_size, softcap, chunk, compiled)  # type: ignore[no-untyped-call]
    return total


@torch.no_grad()
def token_losses(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, vocab_size: int, softcap: float, chunk: int = CHUNK_TOKENS
) -> Tensor:
    """The cross-entropy of each position, without gradients: (N,) float32. Arguments as of `sum_losses`."""
    rows = weight[:vocab_size].to(hidden.dtype)
    losses = [
        _chunk_losses(hidden[start : start + chunk] @ rows.mT, targets[start : start + chunk], softcap)[0]
        for start in range(0, len(hidden), chunk)
    ]
    return torch.cat(losses) if losses else hidden.new_zeros(0, dtype=torch.float32)


def _chunk_losses(logits: Tensor, targets: Tensor, softcap: float) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (n,), tanh (n, V) and exp of the capped logits (n, V). The cap bounds the logits: no maximum is needed."""
    tanh = logits.float().div_(softcap).tanh_()
    exps = (tanh * softcap).exp_()
    picked = tanh.gather(1, targets[:, None]).squeeze(1) * softcap
    return exps.sum(1).log_() - picked, tanh, exps


def _chunk_gradient(logits: Tensor, targets: Tensor, softcap: float) -> tuple[Tensor, Tensor]:
    """Losses (n,), and their gradient with respect to the uncapped logits (n, V), float32."""
    losses, tanh, exps = _chunk_losses(logits, targets, softcap)
    index = targets[:, None]
    slope_at_target = 1.0 - tanh.gather(1, index).square_()
    gradient = exps.div_(exps.sum(1, keepdim=True))
    gradient.addcmul_(gradient, tanh.square_(), value=-1.0)  # softmax x (1 - tanh^2)
    gradient.scatter_add_(1, index, slope_at_target.neg_())
    return losses, gradient


@lru_cache(maxsize=1)
def _compile_chunk_gradient() -> Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]:
    """On two CPU cores it took 63 ms where the plain one took 76, after 36 s of compiling: it is for GPUs."""
    return torch.compile(_chunk_gradient, dynamic=True)


class _HeadLoss(torch.autograd.Function):
    """See `sum_losses`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        vocab_size: int,
        softcap: float,
        chunk: int,
        compiled: bool,  # noqa: FBT001 - autograd passes arguments by position
    ) -> Tensor:
        compute = _compile_chunk_gradient() if compiled else _chunk_gradient
        rows = weight[:vocab_size].to(hidden.dtype)
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight)
        total = weight.new_zeros(())
        for start in range(0, len(hidden), chunk):
            part = hidden[start : start + chunk]
            losses, gradient = compute(part @ rows.mT, targets[start : start + chunk], softcap)
            total += losses.sum()
            gradient = gradient.to(hidden.dtype)
            hidden_gradient[start : start + chunk] = gradient @ rows
            if hidden.dtype == weight.dtype:
                weight_gradient[:vocab_size].addmm_(gradient.mT, part)
            else:
                weight_gradient[:vocab_size] += gradient.mT @ part
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * grads[0], weight_gradient * grads[0], None, None, None, None, None
