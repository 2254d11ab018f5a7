"""Training runs as processes: any number of ranks, killed, stopped, resumed, damaged, on a store over HTTP."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nanosft.data import read_manifest
from nanosft.errors import ConfigError
from nanosft.nanochat import load_checkpoint
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from nanosft.train.stage import run_train
from tests.ranks import kill, run_ranks, start_ranks, wait_for
from tests.unit.train.make import GOLDEN, talk

NUM_STEPS = 20


@pytest.fixture
def settings(shared, tmp_path):
    """A small run: 12 rows a step, which 1, 2 and 3 ranks divide."""
    return {
        "base": str(GOLDEN / "g5"),
        "data": str(shared / "data/identity_b.jsonl"),
        "val_data": str(shared / "data/identity_b.jsonl"),
        "out": str(tmp_path / "run"),
        "max_seq_len": 128,
        "total_batch_size": 128 * 12,
        "device_batch_size": 12,
        "max_steps": NUM_STEPS,
        "save_every": 2,
        "eval_every": 8,
        "eval_rows": 4,
        "sample_tokens": 3,
        "device": "cpu",
        "dtype": "float32",
        "num_threads": 1,
    }


def metrics_of(out):
    return [json.loads(line) for line in open_store(out).read("metrics.jsonl").splitlines()]


def losses_of(out):
    return [line["loss"] for line in metrics_of(out) if "loss" in line]


def final_weights(out):
    return load_checkpoint(out).model.state_dict()


def saved_steps(out):
    return sorted(int(path.parent.name[5:11]) for path in Path(out, "state").glob("*/manifest.json"))


def wait_for_state(ranks, out, step, timeout_s=60.0):
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s and all(rank.is_alive() for rank in ranks):
        if saved_steps(out)[-1:] >= [step]:
            return
        time.sleep(0.005)
    pytest.fail(f"no state of step {step}; there are {saved_steps(out)}")


def test_the_losses_are_the_same_at_any_number_of_ranks_and_micro_batches(settings, tmp_path):
    runs = {"one": (1, 12), "two": (2, 6), "three": (3, 4), "accumulated": (2, 2)}
    for name, (size, rows) in runs.items():
        changes = {"out": str(tmp_path / name), "device_batch_size": rows, "save_every": 0, "eval_every": 0}
        assert run_ranks(settings | changes, size, log=tmp_path / "log") == [0] * size, (tmp_path / "log").read_text()
    expected = losses_of(str(tmp_path / "one"))
    assert len(expected) == NUM_STEPS
    assert expected[-1] < 0.9 * expected[0]
    for name in ("two", "three", "accumulated"):
        assert losses_of(str(tmp_path / name)) == pytest.approx(expected, rel=1e-5), name


@pytest.mark.parametrize("size", [1, 3])
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(settings, tmp_path, size):
    log = tmp_path / "log"
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    assert run_ranks(settings | {"out": whole}, size, log=log) == [0] * size, log.read_text()
    for step in (4, 10):
        ranks = start_ranks(settings | {"out": broken}, size, log=log)
        wait_for_state(ranks, broken, step)
        kill(ranks)
    assert read_manifest(open_store(broken)) is None
    assert run_ranks(settings | {"out": broken}, size, log=log) == [0] * size, log.read_text()
    assert "resumed after step" in log.read_text()
    expected, found = final_weights(whole), final_weights(broken)
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    kept = [
        [(line["step"], line.get("loss"), line.get("val_loss")) for line in metrics_of(out) if "resumed" not in line]
        for out in (whole, broken)
    ]
    assert kept[0] == kept[1]


def test_sigterm_to_one_rank_saves_the_step_on_all_and_one_rank_can_go_on(settings, tmp_path):
    settings |= {"eval_every": 1, "eval_rows": 1, "sample_tokens": 0}  # the signal leaves an evaluation for the rerun
    log = tmp_path / "log"
    whole, stopped = str(tmp_path / "whole"), str(tmp_path / "stopped")
    assert run_ranks(settings | {"out": whole}, 2, log=log) == [0, 0], log.read_text()
    settings |= {"save_every": 5}
    ranks = start_ranks(settings | {"out": stopped}, 2, log=log)
    wait_for_state(ranks, stopped, 5)
    ranks[1].terminate()  # SIGTERM
    assert wait_for(ranks) == [143, 143]
    assert saved_steps(stopped)[-1] > 5
    assert "loss" in metrics_of(stopped)[-1]  # a signal does not wait for the step's evaluation
    assert log.read_text().count("interrupted:") == 1
    assert run_ranks(settings | {"out": stopped}, 1, log=log) == [0], log.read_text()
    assert losses_of(stopped) == pytest.approx(losses_of(whole), rel=1e-5)
    kept = [
        [(line["step"], line.get("val_loss", 0.0)) for line in metrics_of(out) if "resumed" not in line]
        for out in (whole, stopped)
    ]
    assert [step for step, _ in kept[1]] == [step for step, _ in kept[0]]
    assert [loss for _, loss in kept[1]] == pytest.approx([loss for _, loss in kept[0]], rel=1e-5)


def test_a_finished_run_is_a_chat_checkpoint_with_its_lineage_and_runs_once(settings):
    first = run_train(TrainSettings(**settings))
    out = settings["out"]
    manifest = read_manifest(open_store(out))
    assert manifest is not None
    assert manifest.kind == "model"
    assert {item.key.rpartition("/")[2] for item in manifest.objects} >= {
        "model_000020.pt",
        "meta_000020.json",
        "tokenizer.pkl",
        "token_bytes.pt",
    }
    assert sum(item.key.startswith("metrics-") for item in manifest.objects) == 1
    assert len(manifest.parents) == 3
    checkpoint = load_checkpoint(out)
    base = load_checkpoint(settings["base"])
    assert (checkpoint.source, checkpoint.step, checkpoint.tag) == ("chat", NUM_STEPS, base.tag)
    assert checkpoint.meta["model_config"] == base.meta["model_config"]
    evaluations = [line for line in metrics_of(out) if "val_loss" in line]
    assert [line["step"] for line in evaluations] == [0, 8, 16, 20]
    assert evaluations[-1]["val_loss"] < evaluations[0]["val_loss"]
    assert evaluations[-1]["val_bpb"] > 0
    assert set(evaluations[-1]["samples"]) == {"Who are you?", "Who made you?", "What can you do?"}
    assert not list(open_store(out).list("plan/"))
    again = run_train(TrainSettings(**settings))
    assert again.was_finished
    assert (again.step, again.val_loss) == (first.step, first.val_loss)
    with pytest.raises(ConfigError, match="made with seed=0, now seed=1"):
        run_train(TrainSettings(**settings | {"seed": 1}))


def test_the_best_model_is_kept_beside_the_last_when_it_stops_early(settings, tmp_path, caplog):
    # Answers of numbers alone: learning how answers look helps at first, learning what they say does not
    numbers = tmp_path / "numbers.jsonl"
    numbers.write_bytes(b"".join(talk("?", f"{n * 7919 % 1000} {n * n} {n * 31 % 97}") for n in range(40)))
    changes = {"val_data": str(numbers), "eval_every": 2, "early_stop": 2}
    summary = run_train(TrainSettings(**settings | changes))
    assert 0 < summary.best_step < summary.step < NUM_STEPS
    best, last = (load_checkpoint(settings["out"], step=step) for step in (summary.best_step, summary.step))
    assert best.meta["val_bpb"] < last.meta["val_bpb"]
    assert not list(open_store(settings["out"]).list("best/"))
    assert load_checkpoint(settings["out"]).step == summary.best_step
    assert "the model begins to learn its data by heart" in caplog.text


def test_a_run_on_a_store_over_http(settings, bucket, tmp_path):
    changes = {"out": f"{bucket}/run", "max_steps": 4}
    assert run_ranks(settings | changes, 2, log=tmp_path / "log") == [0, 0], (tmp_path / "log").read_text()
    assert load_checkpoint(f"{bucket}/run").step == 4
    assert len(losses_of(f"{bucket}/run")) == 4


def test_row_attention_and_bfloat16_train_too(settings):
    # Few rows and steps: a CPU without the instructions takes 25 times as long.
    few = {"total_batch_size": 128 * 3, "device_batch_size": 3, "max_steps": 4}
    run_train(TrainSettings(**settings | few | {"attention": "row", "dtype": "bfloat16", "eval_every": 0}))
    losses = losses_of(settings["out"])
    assert losses[-1] < 0.9 * losses[0]


def test_launch_tells_the_root_cause_once(tmp_path):
    command = [sys.executable, "-m", "nanosft", "launch", "--nproc-per-node", "2", "train"]
    options = [
        "--base",
        str(GOLDEN / "g5"),
        "--data",
        str(tmp_path / "none.jsonl"),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("error: ") == 1
    assert "nothing is there" in done.stderr


def test_conversations_longer_than_a_row_train_on_a_real_base_with_two_ranks(shared, tmp_path):
    settings = {
        "base": str(shared / "nanochat_base"),
        "data": str(shared / "data/identity_a.jsonl"),
        "out": str(tmp_path / "run"),
        "max_seq_len": 512,
        "total_batch_size": 1024,
        "max_steps": 8,
        "eval_every": 0,
        "sample_tokens": 0,
        "save_every": 0,
        "device": "cpu",
    }
    assert run_ranks(settings, 2, log=tmp_path / "log") == [0, 0], (tmp_path / "log").read_text()
    losses = losses_of(settings["out"])
    assert all(loss < 20 for loss in losses)  # and none is NaN
    assert losses[-1] < 0.6 * losses[0]
    assert "999 shortened, 0 dropped" in (tmp_path / "log").read_text()


def as_flat_folder(root):
    shutil.copytree(GOLDEN / "g5/base_checkpoints/d4", root)
    return shutil.copytree(GOLDEN / "g5/tokenizer", root, dirs_exist_ok=True)


def as_experiment(root):
    shutil.copytree(GOLDEN / "g5/base_checkpoints/d4", root / "experiments/mine/d4/base")
    shutil.copytree(GOLDEN / "g5/tokenizer", root / "experiments/mine/tokenizer")
    return root / "experiments/mine"


def as_ddp_saved(root):
    shutil.copytree(GOLDEN / "g5", root)
    path = root / "base_checkpoints/d4/model_000007.pt"
    torch.save({f"module._orig_mod.{key}": value for key, value in torch.load(path, weights_only=True).items()}, path)
    return root


def test_a_base_finetunes_alike_in_every_layout(settings, tmp_path):
    changes = {"max_steps": 2, "save_every": 0, "eval_every": 0, "sample_tokens": 0}
    expected = None
    for lay_out in (lambda _: GOLDEN / "g5", as_experiment, as_flat_folder, as_ddp_saved):
        out = str(tmp_path / f"run-{lay_out.__name__}")
        base = str(lay_out(tmp_path / lay_out.__name__))
        run_train(TrainSettings(**(settings | changes | {"out": out, "base": base})))
        assert Path(out, "chatsft_checkpoints/d4/model_000002.pt").exists()
        weights = final_weights(out)
        expected = expected or weights
        assert all(torch.equal(weights[key], expected[key]) for key in expected), base
