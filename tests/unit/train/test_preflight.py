import logging

import pytest

from nanosft.data import put_manifest
from nanosft.distributed import World
from nanosft.errors import NanosftError
from nanosft.manifest import Manifest
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from nanosft.train.preflight import run_preflight
from tests.unit.train.make import GOLDEN, talk


def make(tmp_path, **changes):
    data = tmp_path / "data.jsonl"
    data.write_bytes(talk("Who are you?", "I am nanochat."))
    settings = {
        "base": str(GOLDEN / "g5"),
        "data": str(data),
        "out": str(tmp_path / "out"),
        "device": "cpu",
    }
    return TrainSettings(**settings | changes)


def test_a_run_that_would_work_passes_and_leaves_nothing_behind(tmp_path):
    checks = run_preflight(make(tmp_path), World())
    assert [check.name for check in checks] == ["store", "base and tokenizer", "data", "batch", "memory"]
    assert "4 rows of 256 tokens a step" in checks[3].found
    assert not list(open_store(str(tmp_path / "out")).list())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "nowhere"}, "nowhere"),
        ({"data": "nowhere.jsonl"}, "nothing is there"),
        ({"total_batch_size": 1000}, "no multiple of --max-seq-len 256"),
        ({"device_batch_size": 10**9, "total_batch_size": 256 * 10**9}, "lower --device-batch-size"),
        ({"base_step": 5}, "5"),
    ],
)
def test_what_would_fail_is_said_before_it_does(tmp_path, changes, message):
    with pytest.raises(NanosftError, match=message):
        run_preflight(make(tmp_path, **changes), World())


def test_a_prefix_of_a_run_with_other_settings_is_found(tmp_path):
    manifest = Manifest(kind="model", name="run", objects=(), settings={"seed": 7})
    put_manifest(open_store(str(tmp_path / "out")), manifest)
    with pytest.raises(NanosftError, match=r"made with .*, now"):
        run_preflight(make(tmp_path), World())


def test_ranks_that_do_not_divide_the_batch_are_found_by_one_process(tmp_path):
    with pytest.raises(NanosftError, match="3 ranks do not divide the 4 rows"):
        run_preflight(make(tmp_path, preflight_nodes=3), World())


def test_one_process_asks_for_the_job_that_it_is_told_of(tmp_path):
    settings = make(tmp_path, preflight_nodes=2, preflight_ranks_per_node=2)
    checks = run_preflight(settings, World())
    assert "1 on each of 4 ranks" in checks[3].found


def test_all_problems_are_told_not_the_first_alone(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="nanosft")
    with pytest.raises(NanosftError, match=r"\(1 more problems above\)"):
        run_preflight(make(tmp_path, data="nowhere.jsonl", total_batch_size=1000), World())
    assert "nothing is there" in caplog.text
    assert "no multiple" in caplog.text


def test_memory_is_what_the_container_is_allowed(tmp_path, monkeypatch):
    """It spoke of 23.5 GiB in a pod limited to 4."""
    monkeypatch.setattr("nanosft.train.preflight.find_memory_bytes", lambda: 1 << 20)
    with pytest.raises(NanosftError, match=r"container has 0\.0 GiB: lower --device-batch-size"):
        run_preflight(make(tmp_path), World())
