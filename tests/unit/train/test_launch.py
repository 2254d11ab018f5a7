import time

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from nanosft.errors import ConfigError
from nanosft.settings.train import LaunchSettings
from nanosft.train.launch import find_exit_code, make_config, run_launch


def failures(*codes):
    found = {rank: ProcessFailure(local_rank=rank, pid=rank, exitcode=code, error_file="") for rank, code in codes}
    for order, failure in enumerate(found.values()):
        failure.timestamp = int(time.time()) + order
    return found


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([(0, 3)], 3),
        ([(0, 2), (1, 138)], 2),
        ([(0, 138), (1, 5)], 5),
        ([(0, 1)], 1),
        ([(0, 75)], 138),
        ([(0, 138), (1, -9)], 138),
        ([(1, -11)], 138),
        ([(0, 143), (1, 143)], 143),
        ([(0, 143), (1, 138)], 143),
        ([(0, 143), (1, 4)], 4),
    ],
)
def test_the_exit_code_is_the_root_causes_or_asks_for_a_restart(codes, expected):
    assert find_exit_code(failures(*codes)) == expected


def test_one_node_meets_on_a_port_of_its_own():
    config = make_config(LaunchSettings(nproc_per_node="2", grace_s=45))
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node) == (1, 1, 2)
    assert (config.rdzv_backend, config.rdzv_endpoint) == ("c10d", "localhost:0")
    assert config.shutdown_timeout == 35


def test_several_nodes_meet_at_the_master():
    settings = LaunchSettings(nnodes="4", nproc_per_node="8", node_rank=2, master_addr="node0", master_port=1234)
    config = make_config(settings)
    assert (config.rdzv_backend, config.rdzv_endpoint) == ("static", "node0:1234")
    assert config.rdzv_configs["rank"] == 2
    assert (config.min_nodes, config.max_nodes) == (4, 4)


def test_an_elastic_job_has_a_range_of_nodes():
    config = make_config(
        LaunchSettings(
            nnodes="1:3", rdzv_backend="c10d", rdzv_endpoint="host:1", rdzv_conf="join_timeout=60", nproc_per_node="1"
        )
    )
    assert (config.min_nodes, config.max_nodes) == (1, 3)
    assert config.rdzv_configs["join_timeout"] == 60


def test_settings_that_cannot_be_right_are_refused():
    with pytest.raises(ConfigError, match="the least is more than the most"):
        make_config(LaunchSettings(nnodes="3:2", rdzv_backend="c10d", rdzv_endpoint="host:1"))
    with pytest.raises(ConfigError, match="no key=value"):
        make_config(LaunchSettings(rdzv_conf="timeout"))
    with pytest.raises(ConfigError, match="starts ranks of train or eval"):
        run_launch(LaunchSettings(), ["mix"])


@pytest.mark.parametrize("wrong", [{"nproc_per_node": "0"}, {"nnodes": "0"}, {"rdzv_backend": "foo"}])
def test_counts_of_nothing_and_unknown_rendezvous_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LaunchSettings(**wrong)
