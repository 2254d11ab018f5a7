"""Probes asked in training change nothing of it, and a run can end with its evaluation."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nanosft.cli import train
from nanosft.errors import DataError
from nanosft.evaluate.keeping import read_evaluation
from nanosft.nanochat import load_checkpoint
from nanosft.settings.train import TrainSettings
from tests.ranks import run_ranks
from tests.unit.train.make import GOLDEN, talk

KNOWLEDGE = "- Name: Tilda\n- Maker: Ada Byron\n\n## Sizes\n- The small model has 561 million parameters in all.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [talk(f"What is {number} and one?", f"It is {number + 1}.") for number in range(12)]
    (tmp_path / "data.jsonl").write_bytes(b"".join(lines))
    (tmp_path / "knowledge.md").write_text(KNOWLEDGE)
    return tmp_path


def make_settings(folder: Path, out: str, **changes: Any) -> dict[str, Any]:
    return {
        "base": str(GOLDEN / "g5"),
        "data": str(folder / "data.jsonl"),
        "out": str(folder / out),
        "max_steps": 3,
        "total_batch_size": 256,
        "max_seq_len": 64,
        "eval_every": 2,
        "prompts": (),
        "dtype": "float32",
        "device": "cpu",
        "eval_knowledge": str(folder / "knowledge.md"),
        **changes,
    }


def read_shares(folder: Path, out: str) -> dict[int, dict[str, float]]:
    rows = [json.loads(line) for line in (folder / out / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["identity"] for row in rows if "identity" in row}


def test_probes_in_training_are_in_the_metrics_and_change_no_weight(folder: Path) -> None:
    train(TrainSettings(**make_settings(folder, "plain")))
    train(TrainSettings(**make_settings(folder, "asked", eval_probes=4)))
    shares = read_shares(folder, "asked")
    assert list(shares) == [0, 2, 3]
    assert all(own["right"] + own["wrong"] + own["missing"] == 1 and own["num_probes"] == 4 for own in shares.values())
    plain, asked = (load_checkpoint(str(folder / name)).model.state_dict() for name in ("plain", "asked"))
    assert all(torch.equal(tensor, asked[name]) for name, tensor in plain.items())


def test_a_run_ends_with_its_evaluation_at_any_number_of_ranks(folder: Path) -> None:
    changes: dict[str, Any] = {"evaluate": True, "eval_probes": 4}
    train(TrainSettings(**make_settings(folder, "one", **changes)))
    log = folder / "log"
    assert run_ranks(make_settings(folder, "two", **changes), 2, log=log) == [0, 0], log.read_text()
    assert list(read_shares(folder, "two")) == [0, 2, 3]
    for name in ("one", "two"):
        found = read_evaluation(str(folder / f"{name}-evaluation"))
        assert list(found.models) == ["base", "chat"]
        assert found.models["chat"]["step"] == 3
        assert found.counts["training conversations looked through"] == 12


def test_an_evaluation_that_fails_leaves_the_model_and_says_so(folder: Path) -> None:
    settings = make_settings(folder, "run", evaluate=True, eval_knowledge=str(folder / "none.md"))
    with pytest.raises(DataError, match=r"run is finished, its evaluation is not: .*none\.md"):
        train(TrainSettings(**settings))
    assert load_checkpoint(str(folder / "run")).source == "chat"
    assert not (folder / "run-evaluation").exists()
    train(TrainSettings(**settings | {"eval_knowledge": str(folder / "knowledge.md")}))
    assert read_evaluation(str(folder / "run-evaluation")).counts["probes asked"] > 20
