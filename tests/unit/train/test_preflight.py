import errno
import logging
import os
import shutil
from types import SimpleNamespace

import pytest
import torch

from nanosft.data import put_manifest
from nanosft.distributed import World
from nanosft.errors import ConfigError, NanosftError, StoreError
from nanosft.manifest import Manifest
from nanosft.nanochat import load_checkpoint
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from nanosft.train.preflight import estimate_disk_bytes, run_preflight
from nanosft.train.stage import run_train
from nanosft.train.state import list_states
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
    assert [check.name for check in checks] == ["store", "base and tokenizer", "data", "batch", "memory", "disk"]
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


@pytest.mark.parametrize(("free", "is_enough"), [(1 << 20, False), (1 << 40, True)])
def test_free_space_is_looked_at_before_the_first_step(tmp_path, monkeypatch, free, is_enough):
    """A disk that was too small was found in mid-train."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=free))
    settings = make(tmp_path, keep_states=3)
    if is_enough:
        assert "GiB (the data as tokens" in run_preflight(settings, World())[-1].found
        return
    with pytest.raises(
        ConfigError, match=r"needs about 0\.\d\d GiB .*3 states, .*0\.00 GiB are free: free some, lower --keep"
    ):
        run_preflight(settings, World())


def make_short(tmp_path, **changes):
    rows = {"total_batch_size": 64, "max_seq_len": 64, "sample_tokens": 0, "max_steps": 4, "dtype": "float32"}
    return make(tmp_path, save_every=1, eval_every=1, val_data=str(tmp_path / "data.jsonl"), **rows, **changes)


def test_what_a_run_will_hold_covers_what_it_held(tmp_path):
    settings = make(
        tmp_path, keep_states=2, save_every=1, max_steps=4, eval_every=1, val_data=str(tmp_path / "data.jsonl")
    )
    settings = settings.model_copy(update={"total_batch_size": 64, "max_seq_len": 64, "sample_tokens": 0})
    most = 0

    def measure(_base: object, _world: World) -> dict[str, float]:
        nonlocal most
        most = max(most, sum(path.stat().st_size for path in tmp_path.glob("out/**/*") if path.is_file()))
        return {}

    run_train(settings, measure)
    num_params = sum(param.numel() for param in load_checkpoint(settings.base).model.parameters())
    data_bytes = (tmp_path / "data.jsonl").stat().st_size
    bound = estimate_disk_bytes(num_params, 2 * num_params, 2 * data_bytes, keep_states=2)
    assert bound / 8 < most < bound


def test_a_disk_that_fills_up_in_mid_train_is_exit_75_and_the_run_goes_on_from_the_state_before(tmp_path, monkeypatch):
    """ "this is a defect of nanosft" was said of a full disk."""
    settings = make_short(tmp_path)
    asked = []

    def fill(_file: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def ask(_base: object, _world: World) -> dict[str, float]:
        asked.append(0)
        if len(asked) == 4:
            monkeypatch.setattr("nanosft.store.local_streams.sync_file", fill)
        return {}

    with pytest.raises(StoreError, match=r"No space left on device: free some space and run the same command again"):
        run_train(settings, ask)
    monkeypatch.undo()
    states = list_states(open_store(settings.out))
    assert states
    assert not list((tmp_path / "out").rglob(".nanosft-tmp-*"))
    run_train(settings)
    run_train(settings.model_copy(update={"out": str(tmp_path / "whole")}))
    found, whole = (load_checkpoint(str(tmp_path / name)).model.state_dict() for name in ("out", "whole"))
    assert all(torch.equal(tensor, found[name]) for name, tensor in whole.items())
