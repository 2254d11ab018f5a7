import json
import logging

import torch

from nanosft.nanochat.generations import ModelConfig
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from nanosft.train import precision
from nanosft.train.precision import choose_dtype, measure_products
from nanosft.train.stage import run_train
from tests.unit.train.make import GOLDEN, talk

CONFIG = ModelConfig(sequence_len=16, vocab_size=64, n_layer=1, n_head=1, n_kv_head=1, n_embd=32)
CPU = torch.device("cpu")


def pretend(monkeypatch, **seconds):
    monkeypatch.setattr(precision, "measure_products", lambda _config: seconds)


def test_bfloat16_is_taken_where_it_is_faster_by_far_and_the_ratio_told(monkeypatch, caplog):
    """Where both were about as fast, two runs alike took one each: their weights differed."""
    with caplog.at_level(logging.INFO, logger="nanosft"):
        pretend(monkeypatch, float32=0.01, bfloat16=0.02)
        assert choose_dtype("auto", CONFIG, CPU) == torch.float32
        assert "float32: this CPU multiplies bfloat16 0.5 times as fast as float32" in caplog.text
        pretend(monkeypatch, float32=0.014, bfloat16=0.01)
        assert choose_dtype("auto", CONFIG, CPU) == torch.float32
        pretend(monkeypatch, float32=0.03, bfloat16=0.01)
        assert choose_dtype("auto", CONFIG, CPU) == torch.bfloat16
        assert "bfloat16: this CPU multiplies bfloat16 3.0 times as fast as float32" in caplog.text


def test_what_is_asked_for_or_was_begun_with_is_not_measured(monkeypatch):
    monkeypatch.delattr(precision, "measure_products")
    assert choose_dtype("bfloat16", CONFIG, CPU, kept="float32") == torch.bfloat16
    assert choose_dtype("auto", CONFIG, CPU, kept="float32") == torch.float32
    assert choose_dtype("auto", CONFIG, CPU, kept="bfloat16") == torch.bfloat16


def test_both_dtypes_are_measured():
    seconds = measure_products(CONFIG)
    assert set(seconds) == {"float32", "bfloat16"}
    assert all(0 < value < 1 for value in seconds.values())


def test_a_run_goes_on_in_what_it_began_with_whatever_the_machine_would_choose(monkeypatch, tmp_path):
    data, out = tmp_path / "data.jsonl", str(tmp_path / "out")
    data.write_bytes(b"\n".join(talk(f"Hi {number}", "Hello there") for number in range(8)))
    settings = TrainSettings(
        base=str(GOLDEN / "g5"),
        data=str(data),
        out=out,
        device="cpu",
        sample_tokens=0,
        max_seq_len=64,
        total_batch_size=64,
        device_batch_size=1,
        max_steps=3,
        save_every=2,
        num_threads=torch.get_num_threads(),
    )
    pretend(monkeypatch, float32=1.0, bfloat16=2.0)
    run_train(settings)
    whole = [line for line in open_store(out).read("metrics.jsonl").splitlines() if b"step_s" in line]
    (state,) = (tmp_path / "out/state").iterdir()
    assert json.loads((state / "manifest.json").read_bytes())["counts"]["dtype"] == "float32"
    (tmp_path / "out/manifest.json").unlink()  # as if it had been killed after step 2

    pretend(monkeypatch, float32=2.0, bfloat16=1.0)
    run_train(settings)
    resumed = [line for line in open_store(out).read("metrics.jsonl").splitlines() if b"step_s" in line]
    assert [json.loads(line)["loss"] for line in resumed] == [json.loads(line)["loss"] for line in whole]
    assert resumed[:2] == whole[:2]
    assert resumed[2] != whole[2]  # its time: the step was made anew
