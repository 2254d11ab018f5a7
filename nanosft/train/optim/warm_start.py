"""Warm start: the momenta that pretraining left in nanochat's `optim_<step>_rank<n>.pt`, at any number of ranks.

What the files hold (read from nanochat's sources of 2026): one state dict a rank, with groups of a kind "adamw" or
"muon". AdamW's moments of parameters with 1,024 elements and more are cut over the ranks by rows, smaller ones are
whole in each file. Muon's lie in stacks of matrices of equal shape, under the first parameter of the group; each rank
has ceil(K / ranks) of the K matrices, the last ones padded with zeros. Parameters have numbers, no names: they are
counted in the order of the groups.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nanosft.errors import DataError
from nanosft.train.optim.optimizer import Group, MuonAdamW

_SMEAR_ORDER = ("smear_gate.weight", "smear_lambda", "backout_lambda")


def load_moments(optimizer: MuonAdamW, files: Sequence[Any], *, where: str) -> None:
    """Take the moments over; learning rates and schedules stay ours.

    AdamW's count of updates comes along: its bias correction belongs to the moments.

    Args:
        optimizer: Its moments are overwritten.
        files: The state dicts in order of rank; at least one.
        where: What to call them in errors.

    Raises:
        DataError: They are not of this model, or not of a format we know.
    """
    try:
        moments, optimizer_updates = _read_moments(optimizer.groups, files, where)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as exc:
        raise DataError(f"{where}: not an optimizer state of nanochat's format ({exc!r}): --no-warm-start") from exc
    pairs = [(name, key, own[key]) for name, own in optimizer.state.items() for key in own]
    for name, key, tensor in pairs:
        shape = moments[name][key].shape
        if shape != tensor.shape:
            raise DataError(f"{where}: {key} of {name} is {tuple(shape)}, not {tuple(tensor.shape)}: --no-warm-start")
    for name, key, tensor in pairs:
        tensor.copy_(moments[name][key])
    optimizer.num_updates = optimizer_updates


def _read_moments(
    own_groups: Sequence[Group], files: Sequence[Any], where: str
) -> tuple[dict[str, dict[str, Tensor]], int]:
    """All moments by parameter name, and AdamW's count of updates."""
    groups = list(_nanochat_groups(own_groups))
    found = [list(group["params"]) for group in files[0]["param_groups"]]
    if [len(params) for params in found] != [len(params) for _, params in groups]:
        raise DataError(
            f"{where}: its groups of {list(map(len, found))} parameters are not the model's: --no-warm-start"
        )
    names = [name for _, params in groups for name in params]
    index = dict(zip(names, (number for group in found for number in group), strict=True))
    states = [file["state"] for file in files]
    moments: dict[str, dict[str, Tensor]] = {}
    num_updates = 0
    for kind, params in groups:
        if kind == "muon":
            moments |= _stacked(states, index[next(iter(params))], list(params))
            continue
        for name, shape in params.items():
            moments[name] = {key: _rows(states, index[name], key, shape) for key in ("exp_avg", "exp_avg_sq")}
            num_updates = max(num_updates, int(states[0][index[name]]["step"]))
    return moments, num_updates


def _nanochat_groups(groups: Sequence[Group]) -> Iterator[tuple[str, dict[str, torch.Size]]]:
    """Kind, and names with shapes, in the order nanochat numbers them."""
    for group in groups:
        if group.betas is not None:
            names = sorted(group.params, key=_SMEAR_ORDER.index) if group.name == "smear_backout" else group.params
            yield "adamw", {name: group.params[name].shape for name in names}
    for group in groups:
        if group.betas is None:
            for shape in sorted({param.shape for param in group.params.values()}):
                yield "muon", {name: shape for name, param in group.params.items() if param.shape == shape}


def _rows(states: Sequence[Mapping[int, Any]], number: int, key: str, shape: torch.Size) -> Tensor:
    """A moment that lies whole in each file, or cut over them by rows."""
    first: Tensor = states[0][number][key]
    if first.shape == shape:
        return first
    return torch.cat([state[number][key] for state in states])


def _stacked(states: Sequence[Mapping[int, Any]], number: int, names: list[str]) -> dict[str, dict[str, Tensor]]:
    keys = {"momentum": "momentum_buffer", "second": "second_momentum_buffer"}
    stacks = {ours: torch.cat([state[number][theirs] for state in states]) for ours, theirs in keys.items()}
    return {name: {key: stack[row] for key, stack in stacks.items()} for row, name in enumerate(names)}
