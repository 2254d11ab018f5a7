"""Elementwise steps of the model with backward passes of their own: fewer passes over memory than autograd's.

Each keeps for its backward pass as little as the next step keeps anyway. Forward and backward of all blocks for 2,048
tokens (width 256, 4 layers, two cores) took 306 ms with them where autograd's took 325, and 107 where it took 116 in
bfloat16: the products are the rest. Inside `torch.compile` the plain steps stand in their place, because the compiler
joins those of a whole block and would have to stop at functions that it cannot look into.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor

_EPS = torch.finfo(torch.float32).eps


def norm(x: Tensor) -> Tensor:
    """RMS norm over the last dimension, without parameters."""
    if torch.compiler.is_compiling():
        return F.rms_norm(x.float(), (x.shape[-1],), eps=_EPS).to(x.dtype)
    out: Tensor = _Norm.apply(x)  # type: ignore[no-untyped-call]
    return out


def rotate_and_norm(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions over the two halves of a head, then `norm`. x (N, H, D); cos, sin (N, 1, D/2) -> (N, H, D).

    Source: Su et al., RoFormer (arXiv 2104.09864); the direction of the turn is nanochat's.
    """
    if torch.compiler.is_compiling():
        first, second = x.float().chunk(2, dim=-1)
        return norm(torch.cat((first * cos + second * sin, second * cos - first * sin), -1)).to(x.dtype)
    out: Tensor = _RotateAndNorm.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return out


def mlp(x: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
    """Two matrices, a squared ReLU between (Primer, arXiv 2109.08668). x (N, C); inner (H, C), outer (C, H) -> x."""
    if torch.compiler.is_compiling():
        return F.linear(F.relu(F.linear(x, inner.to(x.dtype))).square(), outer.to(x.dtype))
    out: Tensor = _MLP.apply(x, inner, outer)  # type: ignore[no-untyped-call]
    return out


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        inverse = _inverse_rms(x)
        out = (x * inverse).to(x.dtype)
        ctx.save_for_backward(out, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _norm_backward(grad, *ctx.saved_tensors)


class _RotateAndNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        inverse = _inverse_rms(x)  # a rotation leaves it as it is
        out = (_rotate(x, cos, sin, direction=1) * inverse).to(x.dtype)
        ctx.save_for_backward(out, inverse, cos, sin)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        out, inverse, cos, sin = ctx.saved_tensors
        return _rotate(_norm_backward(grad, out, inverse), cos, sin, direction=-1), None, None


class _MLP(torch.autograd.Function):
    """It keeps the ReLU and squares it again: as much memory as keeping the square, whose root costs 7 % of a step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
        above = F.linear(x, inner.to(x.dtype)).relu_()
        ctx.save_for_backward(x, above, inner, outer)
        return F.linear(above.square(), outer.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, above, inner, outer = ctx.saved_tensors
        outer_grad = grad.mT @ above.square()
        above_grad = torch.addmm(above, grad, outer.to(x.dtype), beta=0, alpha=2).mul_(above)
        inner_grad = above_grad.mT @ x
        return above_grad @ inner.to(x.dtype), inner_grad.to(inner.dtype), outer_grad.to(outer.dtype)


def _inverse_rms(x: Tensor) -> Tensor:
    """(…, 1), float32 for half precision."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
    return length.square_().div_(x.shape[-1]).add_(_EPS).rsqrt_()


def _norm_backward(grad: Tensor, out: Tensor, inverse: Tensor) -> Tensor:
    along = (grad * out).sum(-1, keepdim=True)
    return torch.addcmul(grad, out, along, value=-1.0 / grad.shape[-1]).mul_(inverse.to(grad.dtype))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, *, direction: int) -> Tensor:
    out = torch.empty_like(x)
    (first, second), (first_out, second_out) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(first, cos, out=first_out).addcmul_(second, sin, value=direction)
    torch.mul(second, cos, out=second_out).addcmul_(first, sin, value=-direction)
    return out


def scale(x: Tensor, factor: Tensor) -> Tensor:
    """A learned scalar times the stream. x (N, C), factor () or (1,) -> (N, C).

    The scalar's gradient is a sum of N x C terms that nearly cancel: summed in float64, it does not depend on how the
    tokens were cut into batches.
    """
    if torch.compiler.is_compiling():
        return (x.float() * factor).to(x.dtype)
    scaled: Tensor = _Scale.apply(x, factor)  # type: ignore[no-untyped-call]
    return scaled


class _Scale(torch.autograd.Function):
    """See `scale`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(x, factor)
        return x * factor.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, factor = ctx.saved_tensors
        exact = torch.float32 if x.device.type == "mps" else torch.float64  # Apple's GPU has no float64
        total = torch.sum(grads[0] * x, dtype=exact).to(factor.dtype)
        return grads[0] * factor.to(x.dtype), total.view_as(factor)
