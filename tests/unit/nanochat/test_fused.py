"""The steps with backward passes of their own equal the plain ones, forward and backward."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nanosft.nanochat.fused import mlp, norm, rotate_and_norm

ANGLES = torch.linspace(0.0, 3.0, 15, dtype=torch.float64).view(5, 1, 3)


def plain_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), eps=torch.finfo(torch.float32).eps)


def plain_rotation(x: Tensor) -> Tensor:
    turned = torch.view_as_complex(torch.stack(x.chunk(2, -1), -1)) * torch.polar(torch.ones_like(ANGLES), -ANGLES)
    return plain_norm(torch.cat((turned.real, turned.imag), -1))


def matrices(x: Tensor) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inner, outer = (torch.randn(shape, generator=generator, dtype=torch.float64) / 4 for shape in ((8, 6), (6, 8)))
    return inner.to(x.dtype), outer.to(x.dtype)


def plain_mlp(x: Tensor) -> Tensor:
    inner, outer = matrices(x)
    return F.relu(x @ inner.mT) ** 2 @ outer.mT


CASES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "norm": (norm, plain_norm),
    "rotate": (lambda x: rotate_and_norm(x, ANGLES.cos().to(x.dtype), ANGLES.sin().to(x.dtype)), plain_rotation),
    "mlp": (lambda x: mlp(x.flatten(0, 1), *matrices(x)).view_as(x), plain_mlp),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_the_plain_ones(name: str) -> None:
    fused, plain = CASES[name]
    x = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(fused(x), plain(x))
    assert torch.autograd.gradcheck(fused, (x,))


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_stays_bfloat16_and_close(name: str) -> None:
    fused, plain = CASES[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 4, 6, generator=generator, dtype=torch.bfloat16, requires_grad=True)
    exact = x.detach().double().requires_grad_()
    weights = torch.randn(5, 4, 6, generator=generator, dtype=torch.float64)
    found, expected = fused(x), plain(exact)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, atol=0.03, rtol=0.01)
    (gradient,) = torch.autograd.grad(found, x, weights.bfloat16())
    (exact_gradient,) = torch.autograd.grad(expected, exact, weights)
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(gradient.double(), exact_gradient, atol=0.06, rtol=0.02)


def test_a_row_of_zeros_has_a_norm_and_a_gradient() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    out = norm(x)
    assert out.eq(0).all()
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.isfinite().all()


def test_the_matrices_of_the_mlp_get_the_plain_gradients() -> None:
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    inner, outer = (matrix.requires_grad_() for matrix in matrices(x))
    assert torch.autograd.gradcheck(mlp, (x, inner, outer))


@pytest.mark.parametrize("name", CASES)
def test_what_the_compiler_is_given_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fused, _ = CASES[name]
    x = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0))
    expected = fused(x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(fused(x), expected)
