from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nanosft.distributed import World, open_world
from nanosft.errors import ConfigError
from nanosft.settings.train import TrainSettings
from nanosft.train.fit import choose_device_rows, find_largest_power
from nanosft.train.progress import Progress
from nanosft.train.stage import _train

GPU = World(device=torch.device("cuda", 0))


@pytest.mark.parametrize(
    ("room", "limit", "found"), [(0, 8, 0), (1, 8, 1), (7, 8, 4), (8, 8, 8), (100, 8, 8), (100, 12, 8), (3, 0, 1)]
)
def test_the_largest_power_of_two_that_fits_is_found_without_trying_more_than_one_that_does_not(room, limit, found):
    tried = []

    def fits(num):
        tried.append(num)
        return num <= room

    assert find_largest_power(fits, limit) == found
    assert sum(num > room for num in tried) <= 1
    assert all(num <= max(1, limit) for num in tried)


def choose(asked, *, kept=0, world=GPU, room=5):
    return choose_device_rows(asked, default=32, kept=kept, limit=16, world=world, fits=lambda num: num <= room)


def test_on_a_gpu_what_fits_is_taken_unless_a_number_is_given_or_the_run_has_found_one():
    assert [choose(None), choose("auto"), choose(3), choose(None, kept=2)] == [4, 4, 3, 2]
    with pytest.raises(ConfigError, match="not even one row fits"):
        choose("auto", room=0)


@pytest.mark.parametrize("asked", [None, "auto"])
def test_on_a_cpu_the_base_decides_as_before(asked):
    assert choose(asked, world=World()) == 32


def test_apples_gpu_is_refused_clearly_where_there_is_none_and_for_more_ranks_than_one(monkeypatch):
    for size, said in (("1", "no GPU of Apple's"), ("2", "one rank has Apple's GPU")):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", size)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        with pytest.raises(ConfigError, match=said), open_world("mps", timeout_s=1.0):
            pass
    with pytest.raises(ValueError, match="leave --dtype bfloat16 out"):
        TrainSettings(base="base", data="data", out="out", device="mps", dtype="bfloat16")


def test_an_operator_that_a_device_lacks_is_named_with_what_to_do(monkeypatch):
    def lacks(*_):
        raise NotImplementedError("The operator 'aten::_foreach_norm' is not implemented for the MPS device. More.\nx")

    monkeypatch.setattr("nanosft.train.stage.train", lacks)
    run: Any = SimpleNamespace(world=World(device=torch.device("mps")))
    with pytest.raises(ConfigError, match=r"--device mps: The operator 'aten::_foreach_norm' .*: use --device cpu"):
        _train(run, Progress())
