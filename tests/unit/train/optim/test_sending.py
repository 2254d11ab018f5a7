from collections import defaultdict
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn

from nanosft.train.optim import sending
from nanosft.train.optim.sending import broadcast_parameters

SHAPES = {"a": (3, 4), "b": (5,), "c": (2, 2), "d": (1,), "e": (100,), "f": (4, 3)}
NO_TIME = timedelta(0)
OWNERS = {"a": 0, "b": 1, "c": 0, "d": 1, "e": 0, "f": 1}


class Wire:
    """Stands for the ranks' connection: what an owner sent arrives where another rank waits for the same number."""

    def __init__(self, monkeypatch):
        self.rank = 0
        self.sent = {}
        self.num_started = defaultdict(int)
        monkeypatch.setattr(dist, "broadcast", self.start)

    def start(self, tensor, owner, *, async_op):
        assert async_op
        key = owner, self.num_started[self.rank, owner]
        self.num_started[self.rank, owner] += 1
        if self.rank == owner:
            self.sent[key] = tensor.clone()
        return Arrival(tensor, self.sent, key)


class Arrival(dist.Work):
    def __init__(self, tensor, sent, key):
        super().__init__()
        self.tensor, self.sent, self.key = tensor, sent, key

    def wait(self, timeout=NO_TIME):  # noqa: ARG002 - torch's signature
        self.tensor.copy_(self.sent[self.key])
        return True


@pytest.mark.parametrize(("bucket_bytes", "num_collectives"), [(1 << 20, 2), (200, 3), (1, 6)])
def test_every_rank_has_what_the_owners_have_after_few_collectives(monkeypatch, bucket_bytes, num_collectives):
    monkeypatch.setattr(sending, "BUCKET_BYTES", bucket_bytes)
    ranks = [
        {
            name: nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(rank)))
            for name, shape in SHAPES.items()
        }
        for rank in range(3)
    ]
    expected = {name: ranks[OWNERS[name]][name].detach().clone() for name in SHAPES}
    wire, under_way = Wire(monkeypatch), []
    for wire.rank, params in enumerate(ranks):
        under_way += broadcast_parameters(params, OWNERS, rank=wire.rank)
    with torch.no_grad():
        for item in under_way:
            item.wait()
    assert [sum(num for (rank, _), num in wire.num_started.items() if rank == one) for one in range(3)] == [
        num_collectives
    ] * 3
    for params in ranks:
        assert all(torch.equal(params[name], tensor) for name, tensor in expected.items())


def test_a_large_parameter_travels_without_a_copy(monkeypatch):
    wire = Wire(monkeypatch)
    monkeypatch.setattr(sending, "BUCKET_BYTES", 64)
    large = nn.Parameter(torch.zeros(100))
    (only,) = broadcast_parameters({"large": large}, {"large": 0}, rank=wire.rank)
    assert only.flat is None
    assert isinstance(only.work, Arrival)
    assert only.work.tensor.data_ptr() == large.data_ptr()
