"""The first step's gradients are those of the global batch, however many ranks and micro-batches share it."""

import multiprocessing
import os

import numpy as np
import pytest
import torch

from nanosft.distributed import open_world
from nanosft.packing import from_rows
from nanosft.train.batch import build_micro_batch
from nanosft.train.data.plan import split_rows
from nanosft.train.step import LossModule, compute_gradients, replicate
from tests.ranks import find_free_port
from tests.unit.train.make import golden_base, make_tokens

LENGTHS = [40, 90, 33, 120, 77, 64, 25, 101]
SUPERVISED = [3, 80, 1, 100, 2, 60, 24, 5]  # sparse rows beside dense ones: a mean of means would be another gradient


def save_gradients(rank, size, port, device_rows, path):
    if size > 1:
        names = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
    tokens, rows = make_tokens(LENGTHS, SUPERVISED), from_rows([np.array([item]) for item in range(len(LENGTHS))])
    with open_world("cpu", timeout_s=60, num_threads=1) as world:
        module = LossModule(golden_base().model)
        batches = [
            build_micro_batch(
                tokens,
                [rows.row(row) for row in chosen],
                row_len=256,
                attention="document",
                pad_id=0,
                fixed_shape=False,
                row_numbers=chosen,
            )
            for chosen in split_rows(range(len(rows)), rank=rank, world_size=size, device_rows=device_rows)
        ]
        compute_gradients(replicate(module, world), batches, num_supervised=sum(SUPERVISED), world=world)
        if world.is_first:
            torch.save({name: param.grad for name, param in module.named_parameters()}, path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("gradients") / "whole.pt"
    save_gradients(0, 1, 0, 8, path)
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(("size", "device_rows"), [(2, 4), (1, 2), (2, 1), (3, 2)])
def test_the_first_gradients_are_the_same_at_any_number_of_ranks(tmp_path, whole, size, device_rows):
    context = multiprocessing.get_context("spawn")
    path, port = tmp_path / "gradients.pt", find_free_port()
    ranks = [context.Process(target=save_gradients, args=(rank, size, port, device_rows, path)) for rank in range(size)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(120)
    assert [rank.exitcode for rank in ranks] == [0] * size
    found = torch.load(path, weights_only=True)
    assert found.keys() == whole.keys()
    for name, gradient in whole.items():
        assert gradient.norm() > 0, name
        assert (found[name] - gradient).norm() <= 1e-6 * gradient.norm(), name
