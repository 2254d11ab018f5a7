import multiprocessing
import os
from pathlib import Path

import pytest
import torch

from nanosft.distributed import LostRankError, World, lost_ranks, open_world
from nanosft.errors import EXIT_RETRY, ConfigError, DataError
from tests import ranks


def fail() -> None:
    raise DataError("no data")


def test_one_process_is_a_world_of_its_own(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with open_world("cpu", timeout_s=1.0, num_threads=torch.get_num_threads()) as world:
        assert (world.rank, world.size, world.is_first) == (0, 1, True)
        assert world.gather("x") == ["x"]
        assert world.broadcast("x") == "x"
        assert world.sum(torch.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize("method", ["run_on_rank_zero", "run_on_all_ranks"])
def test_an_error_of_shared_work_comes_out_as_it_is(method):
    assert getattr(World(), method)(lambda: 3) == 3
    with pytest.raises(DataError, match="no data"):
        getattr(World(), method)(fail)


def test_a_failed_collective_is_a_lost_rank_that_a_restart_can_mend():
    with pytest.raises(LostRankError, match="resumes by itself") as caught, lost_ranks():
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
    assert caught.value.exit_code == EXIT_RETRY
    with pytest.raises(RuntimeError, match="shape"), lost_ranks():
        raise RuntimeError("shape mismatch")


def test_a_gpu_that_is_not_there_is_a_config_error():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="no GPU"), open_world("cuda", timeout_s=1.0):
        pass


def test_a_world_size_without_a_meeting_place_is_a_config_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with (
        pytest.raises(ConfigError, match="MASTER_ADDR"),
        open_world("cpu", timeout_s=1.0, num_threads=torch.get_num_threads()),
    ):
        pass


def test_ranks_that_meet_again_are_not_sent_to_the_meeting_before(tmp_path):
    """Without an agent rank 0 hosts the store, and an evaluation after training waited for ever."""
    num, port = 8, ranks.find_free_port()
    context = multiprocessing.get_context("forkserver")
    processes = []
    for rank in range(2):
        environ = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes.append(context.Process(target=_meet_often, args=(environ, tmp_path, num)))
        processes[-1].start()
    assert ranks.wait_for(processes, timeout_s=90.0) == [0, 0]
    found = (tmp_path / "0.txt").read_text()
    assert found == repr([[(meeting, 0), (meeting, 1)] for meeting in range(num)])


def _meet_often(environ: dict[str, str], folder: Path, num: int) -> None:
    os.environ |= environ
    kept = []
    for meeting in range(num):
        with open_world("cpu", timeout_s=30.0, num_threads=1) as world:
            kept.append(world.gather((meeting, world.rank)))
    (folder / f"{world.rank}.txt").write_text(repr(kept))
