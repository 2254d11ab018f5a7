import pytest
import torch
from torch import nn

from nanosft.train.optim.optimizer import Group, MuonAdamW, OptimizerConfig, group_parameters, orthogonalize
from tests.unit.train.make import golden_base


def test_every_parameter_is_in_one_group_and_blocks_go_to_muon():
    model = golden_base().model
    groups = group_parameters(model, OptimizerConfig(), width=64)
    names = [name for group in groups for name in group.params]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    muon = {name for group in groups if group.betas is None for name in group.params}
    assert muon == {name for name in names if name.startswith("transformer.h.")}


def test_an_unknown_parameter_is_an_error():
    with pytest.raises(KeyError, match="surprise"):
        group_parameters(nn.ParameterDict({"surprise": nn.Parameter(torch.zeros(1))}), OptimizerConfig(), width=64)


def test_old_generations_have_fewer_groups():
    groups = group_parameters(golden_base("g1").model, OptimizerConfig(), width=64)
    assert [group.name for group in groups] == ["lm_head", "embedding", "matrices"]


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_moments_are_shared_out_over_the_ranks(world_size):
    model = golden_base().model
    groups = group_parameters(model, OptimizerConfig(), width=64)
    shards = [MuonAdamW(groups, rank=rank, world_size=world_size) for rank in range(world_size)]
    names = [name for shard in shards for name in shard.state]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    whole = MuonAdamW(groups)
    sizes = [sum(tensor.numel() for own in shard.state.values() for tensor in own.values()) for shard in shards]
    assert sum(sizes) == sum(tensor.numel() for own in whole.state.values() for tensor in own.values())
    largest = max(tensor.numel() for own in whole.state.values() for tensor in own.values())
    assert max(sizes) <= sum(sizes) / world_size + 4 * largest


@pytest.mark.parametrize("shape", [(64, 64), (32, 64), (256, 64), (1, 12)])
def test_muons_update_has_nearly_equal_singular_values(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalize(matrices, torch.float32)
    values = torch.linalg.svdvals(result)
    assert values.max() < 1.5
    assert values.quantile(0.1) > 0.5  # a square matrix of noise has a few singular values near 0
    torch.testing.assert_close(result.norm(dim=(1, 2)), torch.full((3,), min(shape) ** 0.5))


def test_weight_decay_shrinks_only_what_the_update_shrinks():
    def trained(weight_decay):
        model = golden_base().model
        config = OptimizerConfig(matrix_lr=0.02, weight_decay=weight_decay)
        optimizer = MuonAdamW(group_parameters(model, config, width=64))
        generator = torch.Generator().manual_seed(0)
        for param in model.parameters():
            param.grad = torch.randn(param.shape, generator=generator)
        before = model.get_parameter("transformer.h.0.mlp.c_fc.weight").detach().clone()
        optimizer.step(lr_scale=1.0, momentum=0.85)
        return before, model.get_parameter("transformer.h.0.mlp.c_fc.weight").detach()

    before, plain = trained(0.0)
    _, decayed = trained(0.5)
    agrees = (before - plain) * before >= 0
    torch.testing.assert_close(decayed[~agrees], plain[~agrees])
    torch.testing.assert_close(decayed[agrees], (plain - 0.02 * 2 * 0.5 * before)[agrees])


def test_an_update_waits_for_those_who_read_what_it_changes():
    param = nn.Parameter(torch.ones(2, 2))
    optimizer = MuonAdamW([Group("head", 0.1, (0.9, 0.95), 0.0, {"head": param})])
    seen = []

    class Copy:
        def wait(self):
            seen.append(param.detach().clone())

    optimizer.readers.append(Copy())
    for _ in range(2):
        param.grad = torch.ones(2, 2)
        optimizer.step(lr_scale=1.0, momentum=0.9)
    assert len(seen) == 1
    assert torch.equal(seen[0], torch.ones(2, 2))
    assert not torch.equal(param, torch.ones(2, 2))
