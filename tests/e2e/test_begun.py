"""Prefixes that an earlier nanosft began and a kill ended are finished by today's code: see golden/begun/README.md."""

from pathlib import Path

import orjson
import pytest
import torch

from nanosft.data import read_manifest
from nanosft.generate.stage import run_generate
from nanosft.nanochat import load_checkpoint
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from nanosft.train.stage import run_train
from tests.conftest import open_raw_client, use_endpoint

BEGUN = Path(__file__).parents[1] / "golden" / "begun"
BUCKET = "begun"  # the name under which the prefixes were begun: manifests hold URIs

MOST_ROUNDING = 1e-3
"""Of a tensor's difference, relative to its norm. Other instruction sets came to 7e-5 (AMX); one moment lost, or the
count of updates off by one, to 3e-2 and more."""


@pytest.fixture
def begun(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3://begun` on moto, with the objects that the killed processes left."""
    use_endpoint(monkeypatch, moto_url)
    client = open_raw_client(moto_url)
    client.create_bucket(Bucket=BUCKET)
    for path in BEGUN.rglob("*"):
        if path.is_file() and "expected" not in path.parts:
            client.upload_file(str(path), BUCKET, str(path.relative_to(BEGUN)))
    return f"s3://{BUCKET}"


def _generate(begun: str, shard_index: int) -> None:
    run_generate(
        GenerateSettings(
            out=f"{begun}/generated",
            knowledge=f"{begun}/knowledge.md",
            dimensions=f"{begun}/dimensions.toml",
            provider="offline",
            num=24,
            num_shards=2,
            shard_index=shard_index,
            flush_rows=3,
            concurrency=2,
        )
    )


def _row_number(line: bytes) -> int:
    return int(orjson.loads(line)["meta"]["row"])


def _planned(line: bytes) -> tuple[object, ...]:
    row = orjson.loads(line)
    return row["meta"]["row"], row["meta"]["cell"], row["messages"][0]["content"], len(row["messages"])


def test_generated_rows_are_kept_and_the_missing_ones_follow_the_same_plan(begun: str) -> None:
    store = open_store(f"{begun}/generated")
    before = {info.key: store.read(info.key) for info in store.list("rows/")}
    assert sum(part.count(b"\n") for part in before.values()) == 12  # of 24
    for shard_index in (0, 1):
        _generate(begun, shard_index)
    manifest = read_manifest(store)
    assert manifest is not None
    after = {info.key: store.read(info.key) for info in store.list("rows/")}
    assert after.items() >= before.items()
    lines = sorted((line for part in after.values() for line in part.splitlines()), key=_row_number)
    expected = (BEGUN / "expected" / "rows.jsonl").read_bytes().splitlines()
    kept = {line for part in before.values() for line in part.splitlines()}
    assert kept < set(expected)
    # The rows made today follow the same plan; the composer's words have changed since
    assert [_planned(line) for line in lines] == [_planned(line) for line in expected]
    assert {item.key for item in manifest.objects} == after.keys()


def test_a_resumable_state_ends_with_the_weights_of_an_uninterrupted_run(begun: str) -> None:
    store = open_store(f"{begun}/run")
    before = store.read("metrics.jsonl")
    run_train(
        TrainSettings(
            base=f"{begun}/base",
            data=f"{begun}/data.jsonl",
            val_data=f"{begun}/data.jsonl",
            out=f"{begun}/run",
            max_seq_len=128,
            total_batch_size=128 * 4,
            device_batch_size=2,
            max_steps=12,
            save_every=4,
            keep_states=1,
            eval_every=4,
            eval_rows=2,
            sample_tokens=0,
            prompts=(),
            device="cpu",
            dtype="float32",
            num_threads=1,
        )
    )
    assert read_manifest(store) is not None
    after = store.read("metrics.jsonl")
    assert after.startswith(before)  # it went on, and did not begin anew
    assert after[len(before) :].splitlines()[0] == b'{"step":4,"resumed":true,"world_size":1}'
    expected = torch.load(BEGUN / "expected" / "model.pt", weights_only=True)
    found = load_checkpoint(f"{begun}/run").model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():  # equal bit for bit where the instruction set is the same
        assert float((found[name] - tensor).norm() / tensor.norm()) < MOST_ROUNDING, name
