import pytest
import torch

from nanosft.errors import DataError
from nanosft.train.optim.optimizer import MuonAdamW, OptimizerConfig, group_parameters
from nanosft.train.optim.warm_start import load_moments
from tests.unit.train.make import golden_base

SMEAR = ["smear_gate.weight", "smear_lambda", "backout_lambda"]


def make(**world):
    model = golden_base().model
    return model, MuonAdamW(group_parameters(model, OptimizerConfig(), width=64), **world)


def pretrained():
    """An optimizer with moments that no two tensors share."""
    _, optimizer = make()
    generator = torch.Generator().manual_seed(0)
    for own in optimizer.state.values():
        for tensor in own.values():
            tensor.normal_(generator=generator)
    return optimizer


def nanochat_files(optimizer, num_ranks):
    """The state dicts that nanochat's ranks would have saved of these moments."""
    params = {name: param for group in optimizer.groups for name, param in group.params.items()}
    groups = [("adamw", list(group.params)) for group in optimizer.groups if group.betas is not None]
    groups[-1] = ("adamw", SMEAR)
    matrices = [name for name in params if name.startswith("transformer.h.")]
    groups += [
        ("muon", [name for name in matrices if params[name].shape == shape])
        for shape in sorted({params[name].shape for name in matrices})
    ]
    files = []
    for rank in range(num_ranks):
        number, state, param_groups = 0, {}, []
        for kind, names in groups:
            numbers = list(range(number, number + len(names)))
            number += len(names)
            param_groups.append({"kind": kind, "params": numbers, "lr": 9.0})
            if kind == "muon":
                state[numbers[0]] = stacked(optimizer, names, rank, num_ranks)
                continue
            for index, name in zip(numbers, names, strict=True):
                own = optimizer.state[name]
                whole = params[name].numel() < 1024
                state[index] = {"step": 650} | {
                    key: tensor if whole else tensor.chunk(num_ranks)[rank] for key, tensor in own.items()
                }
        files.append({"state": state, "param_groups": param_groups})
    return files


def stacked(optimizer, names, rank, num_ranks):
    chunk = -(-len(names) // num_ranks)
    result = {}
    for ours, theirs in (("momentum", "momentum_buffer"), ("second", "second_momentum_buffer")):
        stack = torch.stack([optimizer.state[name][ours] for name in names])
        padding = stack.new_zeros(chunk * num_ranks - len(names), *stack.shape[1:])
        result[theirs] = torch.cat([stack, padding])[rank * chunk : (rank + 1) * chunk]
    return result


@pytest.mark.parametrize("num_ranks", [1, 2, 8])
def test_the_momentum_comes_over_from_any_number_of_ranks(num_ranks):
    before = pretrained()
    _, optimizer = make()
    load_moments(optimizer, nanochat_files(before, num_ranks), where="test")
    assert optimizer.num_updates == 650
    for name, own in before.state.items():
        for key, tensor in own.items():
            assert torch.equal(optimizer.state[name][key], tensor), (name, key)


def test_a_rank_takes_what_it_owns():
    before = pretrained()
    _, optimizer = make(rank=1, world_size=3)
    load_moments(optimizer, nanochat_files(before, 2), where="test")
    assert 0 < len(optimizer.state) < len(before.state)
    for name, own in optimizer.state.items():
        for key, tensor in own.items():
            assert torch.equal(before.state[name][key], tensor), (name, key)


def test_files_of_another_model_or_format_are_refused():
    files = nanochat_files(pretrained(), 1)
    _, optimizer = make()
    with pytest.raises(DataError, match="not an optimizer state of nanochat's format"):
        load_moments(optimizer, [{"state": {}}], where="test")
    wide = files[0]["state"][0]
    wide["exp_avg"] = wide["exp_avg"][:, :32]
    with pytest.raises(DataError, match=r"lm_head.weight is \(768, 32\), not \(768, 64\): --no-warm-start"):
        load_moments(optimizer, files, where="test")
    files[0]["param_groups"].pop()
    with pytest.raises(DataError, match="are not the model's"):
        load_moments(optimizer, files, where="test")
