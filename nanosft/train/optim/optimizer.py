"""MuonAdamW: Muon for the matrices inside the blocks, AdamW for everything else, its state sharded over the ranks.

Each parameter has one owner, a rank that keeps its moments, updates it, and broadcasts the result: memory and work
fall with the number of ranks (ZeRO stage 1). `ZeroRedundancyOptimizer` of torch.distributed does this for optimizers
that work tensor by tensor; Muon runs on stacks of equal shape, and a state that one file a rank holds by parameter
name can be read back at any rank count without gathering it first. Hence the few lines here.

Sources: Muon (Jordan et al. 2024), Polar Express (arXiv 2505.16932), row scaling (arXiv 2603.28254), Frobenius scale
(arXiv 2602.21545), NorMuon (arXiv 2510.05491), AdamW (arXiv 1711.05101); the groups are nanochat's recipe.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from nanosft.train.optim.sending import Sending, broadcast_parameters

POLAR_EXPRESS: Final = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""Coefficients (a, b, c) of X <- aX + (bA + cA^2)X with A = XX^T, for safety 2e-2 and cushion 2."""
_ADAM_EPS: Final = 1e-10
_MUON_BETA2: Final = 0.9


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """Learning rates before the schedule, and the decay of Muon's matrices.

    Attributes:
        matrix_lr: Muon's, for every matrix inside the blocks.
        embedding_lr: The token embedding's; value embeddings take half of it.
        unembedding_lr: The head's.
        scalar_lr: That of `x0_lambdas`; `resid_lambdas` take a hundredth of it.
        gate_lr: That of smear and backout.
        weight_decay: The decay of Muon's matrices, applied where update and weight agree in sign.
    """

    matrix_lr: float = 0.02
    embedding_lr: float = 0.3
    unembedding_lr: float = 0.004
    scalar_lr: float = 0.5
    gate_lr: float = 0.2
    weight_decay: float = 0.0


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that share hyper-parameters; `betas` is None for Muon."""

    name: str
    lr: float
    betas: tuple[float, float] | None
    weight_decay: float
    params: dict[str, nn.Parameter] = field(default_factory=dict)


class Reader(Protocol):
    """Work of the device that reads parameters or moments: a `torch.cuda.Event` at its end."""

    def wait(self) -> None:
        """Have what is asked of the device from now on come after it."""


def group_parameters(model: nn.Module, config: OptimizerConfig, *, width: int) -> list[Group]:
    """The recipe's groups, empty ones left out; every parameter is in exactly one.

    Args:
        model: Its parameter names tell which group each belongs to.
        config: Learning rates before any scale.
        width: n_embd; AdamW's rates for embeddings and head are scaled by (n_embd / 768) ** -0.5.

    Raises:
        KeyError: A parameter's name is of no group.
    """
    scale = (width / 768) ** -0.5
    embedding, scalar, gate = config.embedding_lr * scale, config.scalar_lr, config.gate_lr
    groups = {
        r"lm_head\.": Group("lm_head", config.unembedding_lr * scale, (0.8, 0.96), 0.01),
        r"transformer\.wte\.": Group("embedding", embedding, (0.8, 0.995), 0.001),
        r"value_embeds\.": Group("value_embeds", 0.5 * embedding, (0.8, 0.995), 0.01),
        r"resid_lambdas": Group("resid_lambdas", 0.01 * scalar, (0.8, 0.95), 0.05),
        r"x0_lambdas": Group("x0_lambdas", scalar, (0.96, 0.95), 0.0),
        r"smear_|backout_": Group("smear_backout", gate, (0.8, 0.95), 0.0),
        r"transformer\.h\.": Group("matrices", config.matrix_lr, None, config.weight_decay),
    }
    for name, param in model.named_parameters():
        pattern = next((pattern for pattern in groups if re.match(pattern, name)), None)
        if pattern is None:
            raise KeyError(name)
        groups[pattern].params[name] = param
    return [group for group in groups.values() if group.params]


class MuonAdamW:
    """Updates the parameters from their `.grad`, which must hold the gradient of the whole global batch on every rank.

    Attributes:
        groups: All groups, on every rank.
        owners: Parameter name to the rank that keeps its state.
        num_updates: Updates so far, those before a warm start included; AdamW's bias correction depends on it.
        state: Parameter name to its moments, for the parameters this rank owns: Muon's `momentum` (rows, cols) and
            `second` (rows, 1) or (1, cols); AdamW's `exp_avg` and `exp_avg_sq`, of the parameter's shape.
        readers: What the device has to get done before the next update changes parameters and moments: copies of them.
    """

    def __init__(
        self, groups: list[Group], *, rank: int = 0, world_size: int = 1, muon_dtype: torch.dtype = torch.float32
    ) -> None:
        self.groups = groups
        self.owners = _choose_owners(groups, world_size)
        self.rank = rank
        self.world_size = world_size
        self.muon_dtype = muon_dtype
        self.num_updates = 0
        self.state: dict[str, dict[str, Tensor]] = {
            name: _new_state(param, muon=group.betas is None)
            for group in groups
            for name, param in group.params.items()
            if self.owners[name] == rank
        }
        self.readers: list[Reader] = []

    def owned(self, group: Group) -> dict[str, nn.Parameter]:
        """The parameters of a group that this rank updates."""
        return {name: param for name, param in group.params.items() if self.owners[name] == self.rank}

    @torch.no_grad()
    def step(self, *, lr_scale: float, momentum: float) -> None:
        """Update every parameter, on every rank.

        Args:
            lr_scale: What all learning rates are multiplied by at this step.
            momentum: Muon's.
        """
        while self.readers:
            self.readers.pop().wait()  # the stream of the update does, not this thread
        self.num_updates += 1
        # Muon first: its parameters, the longer way, travel while AdamW computes
        sendings: list[Sending] = []
        for is_muon in (True, False):
            groups = [group for group in self.groups if (group.betas is None) == is_muon]
            for group in groups:
                self._update(group, lr=group.lr * lr_scale, momentum=momentum)
            sendings += self.broadcast({name: param for group in groups for name, param in group.params.items()})
        for sending in sendings:
            sending.wait()

    def _update(self, group: Group, *, lr: float, momentum: float) -> None:
        params = self.owned(group)
        if group.betas is None:
            for names in _by_shape(params).values():
                self._update_muon(group, names, lr=lr, momentum=momentum)
        elif params:
            self._update_adamw(group, list(params), lr=lr)

    def broadcast(self, params: Mapping[str, nn.Parameter]) -> list[Sending]:
        """Send each parameter from its owner to all other ranks, in few collectives, which have to be waited for."""
        if self.world_size == 1:
            return []
        return broadcast_parameters(params, self.owners, rank=self.rank)

    def _update_adamw(self, group: Group, names: list[str], *, lr: float) -> None:
        assert group.betas is not None
        params: list[Tensor] = [group.params[name] for name in names]
        grads = [_grad(group.params[name]) for name in names]
        beta1, beta2 = group.betas
        means = [self.state[name]["exp_avg"] for name in names]
        squares = [self.state[name]["exp_avg_sq"] for name in names]
        if group.weight_decay:
            torch._foreach_mul_(params, 1.0 - lr * group.weight_decay)
        torch._foreach_lerp_(means, grads, 1.0 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1.0 - beta2)
        denominators = torch._foreach_div(squares, 1.0 - beta2**self.num_updates)  # noqa: SLF001 - as torch.optim does
        torch._foreach_sqrt_(denominators)
        torch._foreach_add_(denominators, _ADAM_EPS)
        torch._foreach_addcdiv_(params, means, denominators, -lr / (1.0 - beta1**self.num_updates))

    def _update_muon(self, group: Group, names: list[str], *, lr: float, momentum: float) -> None:
        params: list[Tensor] = [group.params[name] for name in names]
        momenta = [self.state[name]["momentum"] for name in names]
        grads = [_grad(group.params[name]) for name in names]
        torch._foreach_lerp_(momenta, grads, 1.0 - momentum)
        nesterov = torch.stack(torch._foreach_lerp(grads, momenta, momentum))  # noqa: SLF001 - as torch.optim does
        seconds = torch.stack([self.state[name]["second"] for name in names])
        update = normalize_update(orthogonalize(nesterov, self.muon_dtype), seconds)
        torch._foreach_copy_([self.state[name]["second"] for name in names], list(seconds.unbind()))
        rows, cols = update.shape[-2:]
        step_size = lr * max(1.0, rows / cols) ** 0.5
        if group.weight_decay:
            weights = torch.stack(params)
            update += group.weight_decay * weights * ((update * weights) >= 0)
        torch._foreach_add_(params, list(update.unbind()), alpha=-step_size)


def orthogonalize(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest semi-orthogonal matrix of each, scaled to the Frobenius norm sqrt(min(rows, cols)).

    Args:
        matrices: (K, rows, cols) float32.
        dtype: What the iteration computes in.

    Returns:
        (K, rows, cols) float32.
    """
    row_norms = matrices.norm(dim=-1, keepdim=True)
    matrices = matrices * (row_norms.mean(dim=-2, keepdim=True) / row_norms.clamp_min(1e-7))
    x = matrices.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-6)
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    if tall:
        x = x.mT
    x = x.float()
    norms: Tensor = x.norm(dim=(-2, -1), keepdim=True)
    return x * (math.sqrt(min(x.shape[-2:])) / norms.clamp_min(1e-7))


def normalize_update(update: Tensor, seconds: Tensor) -> Tensor:
    """NorMuon: each row (of a tall matrix; else column) is scaled by its running mean square; the norm stays.

    Args:
        update: (K, rows, cols) float32.
        seconds: (K, rows, 1) or (K, 1, cols) running mean squares; updated in place.
    """
    over = -1 if seconds.shape[-1] == 1 else -2
    size = update.shape[over]
    mean_square = update.square().mean(dim=over, keepdim=True)
    norm = (mean_square.sum(dim=(-2, -1), keepdim=True) * size).sqrt()
    seconds.lerp_(mean_square, 1.0 - _MUON_BETA2)
    scale = seconds.clamp_min(1e-10).rsqrt()
    new_norm = ((mean_square * size) * scale.square()).sum(dim=(-2, -1), keepdim=True).sqrt()
    return update * (scale * (norm / new_norm.clamp_min(1e-10)))


def _new_state(param: nn.Parameter, *, muon: bool) -> dict[str, Tensor]:
    if not muon:
        return {"exp_avg": torch.zeros_like(param.data), "exp_avg_sq": torch.zeros_like(param.data)}
    rows, cols = param.shape
    second_shape = (rows, 1) if rows >= cols else (1, cols)
    return {"momentum": torch.zeros_like(param.data), "second": param.data.new_zeros(second_shape)}


def _choose_owners(groups: list[Group], world_size: int) -> dict[str, int]:
    """Each parameter to the rank with the least so far, largest first; a function of names, shapes and world size."""
    loads = [0] * world_size
    owners = {}
    named = [
        (name, param.numel() * (4 if group.betas is None else 1), group)
        for group in groups
        for name, param in group.params.items()
    ]
    for name, cost, _ in sorted(named, key=lambda item: (-item[1], item[0])):
        owners[name] = min(range(world_size), key=loads.__getitem__)
        loads[owners[name]] += cost
    return owners


def _by_shape(params: Mapping[str, nn.Parameter]) -> dict[torch.Size, list[str]]:
    shapes: dict[torch.Size, list[str]] = {}
    for name, param in params.items():
        shapes.setdefault(param.shape, []).append(name)
    return shapes


def _grad(param: nn.Parameter) -> Tensor:
    assert param.grad is not None, "step() before a backward pass"
    return param.grad
