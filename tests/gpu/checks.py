"""Checks of the paths that a GPU takes against the ones that a CPU takes; each is a table with its figures."""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from nanosft.nanochat.attention import Documents, Kernel, PackedLayout, choose_kernel
from nanosft.nanochat.generations import GENERATIONS, ModelConfig
from nanosft.nanochat.model import GPT
from nanosft.train.loss import sum_losses

CPU: Final = torch.device("cpu")
LENGTHS: Final = (700, 1, 500, 847)
TOLERANCES: Final = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest relative norm of a difference."""
GRADIENT_TOLERANCES: Final = {torch.float32: 1e-3, torch.bfloat16: 6e-2}


def check_attention(
    device: torch.device, *, label: str = "", kernel: Kernel | None = None, lengths: tuple[int, ...] = LENGTHS
) -> list[dict[str, Any]]:
    """Value and gradients of each window, head sharing and dtype, against blocked attention in float32 on the CPU."""
    checks = []
    for dtype in (torch.bfloat16, torch.float32):
        for num_kv_heads in (4, 1):
            for window in (None, 128):
                chosen = kernel or choose_kernel(device, dtype)
                expected = _attend(CPU, torch.float32, "blocked", num_kv_heads, window, lengths)
                found = _attend(device, dtype, chosen, num_kv_heads, window, lengths)
                errors = [_relative(one, other) for one, other in zip(found, expected, strict=True)]
                name = f"attention {label} {chosen} {_name(dtype)} kv={num_kv_heads} window={window}"
                checks.append(_judge(name, errors[:1], errors[1:], dtype))
    return checks


def check_generation(
    name: str, device: torch.device, dtype: torch.dtype, *, backend: str, num_layers: int = 4, width: int = 256
) -> list[dict[str, Any]]:
    """Loss and gradients of a small model of a generation: eager against the CPU, and compiled against eager."""
    config = ModelConfig(2048, 512, num_layers, 4, 2, width, "SL")
    runs: dict[str, list[Tensor]] = {}
    for run in ("cpu", "eager", "compiled"):
        place, kind = (CPU, torch.float32) if run == "cpu" else (device, dtype)
        model = make_model(config, name, place, kind)
        if run == "compiled":
            model.compile_blocks(backend=backend)
        runs[run] = _loss_and_gradients(model, LENGTHS)
    checks = []
    for run, reference in (("eager", "cpu"), ("compiled", "eager")):
        errors = [_relative(one, other) for one, other in zip(runs[run], runs[reference], strict=True)]
        whole = _relative(torch.cat(_flat(runs[run][1:])), torch.cat(_flat(runs[reference][1:])))
        checks.append(_judge(f"{name} {_name(dtype)} {run} against {reference}", errors[:1], [whole], dtype))
    return checks


def check_head_memory(device: torch.device) -> dict[str, Any]:
    """Peak memory of the head's loss over 16,384 tokens of a vocabulary of 32,768, beside all logits at once."""
    peaks = {}
    weight = torch.randn(32_768, 768, device=device, requires_grad=True)
    hidden = torch.randn(16_384, 768, device=device, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.zeros(len(hidden), dtype=torch.int64, device=device)

    def chunked() -> Tensor:
        return sum_losses(hidden, weight, targets, vocab_size=len(weight), softcap=15.0)

    def plain() -> Tensor:
        logits = torch.nn.functional.linear(hidden, weight.to(hidden.dtype)).float()
        return torch.nn.functional.cross_entropy(15 * torch.tanh(logits / 15), targets, reduction="sum")

    for name, compute in (("chunked", chunked), ("plain", plain)):
        peaks[name] = _peak_bytes(compute, device)
    return {"name": "memory of the head", "ok": peaks["chunked"] < peaks["plain"], **peaks}


def make_model(config: ModelConfig, generation: str, device: torch.device, dtype: torch.dtype) -> GPT:
    """A model of random weights, the same on every device."""
    model = GPT(config, GENERATIONS[generation], compute_dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(0.05 * torch.randn(param.shape, generator=generator))
    return model.to(device)


def _attend(
    device: torch.device, dtype: torch.dtype, kernel: Kernel, num_kv_heads: int, window: int | None, lengths: Any
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    num = sum(lengths)
    q, k, v, weights = (
        torch.randn(num, heads, 64, generator=generator).to(device, dtype)
        for heads in (4, num_kv_heads, num_kv_heads, 4)
    )
    inputs = [x.requires_grad_() for x in (q, k, v)]
    documents = Documents.from_lengths(lengths, device)
    layout = PackedLayout((1, num), documents, device, kernel=kernel, windows=(window,))
    out = layout.attend(0, *inputs, window=window, scale=0.125)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), inputs)]


def _loss_and_gradients(model: GPT, lengths: tuple[int, ...]) -> list[Tensor]:
    num = sum(lengths)
    ids = torch.arange(num).remainder(model.config.vocab_size)[None].to(model.device)
    hidden = model.hidden(ids, documents=Documents.from_lengths(lengths, model.device))[0]
    settings: dict[str, Any] = {"vocab_size": model.config.vocab_size, "softcap": model.generation.softcap}
    loss = sum_losses(hidden, model.lm_head.weight, ids[0].roll(-1), **settings) / num
    loss.backward()
    return [loss.detach(), *(param.grad for param in model.parameters() if param.grad is not None)]


def _judge(name: str, values: list[float], gradients: list[float], dtype: torch.dtype) -> dict[str, Any]:
    is_ok = max(values) <= TOLERANCES[dtype] and max(gradients) <= GRADIENT_TOLERANCES[dtype]
    return {"name": name, "ok": is_ok, "value": max(values), "gradient": max(gradients)}


def _relative(one: Tensor, other: Tensor) -> float:
    one, other = one.double().cpu(), other.double().cpu()
    return float((one - other).norm() / other.norm().clamp_min(1e-12))


def _flat(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.double().cpu().flatten() for tensor in tensors]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _peak_bytes(compute: Callable[[], Tensor], device: torch.device) -> int:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    compute().backward()
    return torch.cuda.max_memory_allocated(device)
