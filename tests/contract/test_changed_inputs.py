"""Inputs that no manifest names: a finished set whose input has changed is none, and nothing is made of two versions.

A finished mix or train whose bare input had changed said "nothing to do"; an input replaced while it was read was half
the one and half the other.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nanosft.audit.stage import run_audit
from nanosft.data import iter_lines, list_data_objects, read_manifest
from nanosft.errors import ConfigError, DataError, NanosftError, StoreError
from nanosft.export.stage import export
from nanosft.mix.stage import make_mixture
from nanosft.settings.audit import AuditSettings
from nanosft.settings.export import ExportSettings
from nanosft.settings.mix import MixSettings
from nanosft.settings.train import TrainSettings
from nanosft.store import join_uri, open_store
from nanosft.train.stage import run_train
from tests.s3_proxy import Fault, S3Proxy
from tests.unit.train.make import GOLDEN, talk

Stage = Callable[[str, str, Path], object]


def run_mix(data: str, out: str, folder: Path) -> object:
    """What it returns tells whether it was finished before."""
    (folder / "recipe.toml").write_text(
        f'[[sources]]\nname = "a"\nuri = "{data}/*.jsonl"\n[deduplicate]\nnear = "off"\n'
    )
    settings = MixSettings(recipe=str(folder / "recipe.toml"), out=out, workers=1, work_dir=str(folder / "work"))
    return make_mixture(settings)


def run_training(data: str, out: str, _folder: Path) -> object:
    settings: dict[str, Any] = {"max_steps": 1, "total_batch_size": 64, "max_seq_len": 64, "sample_tokens": 0}
    return run_train(
        TrainSettings(base=str(GOLDEN / "g5"), data=data, out=out, device="cpu", dtype="float32", **settings)
    )


STAGES: dict[str, tuple[Stage, type[NanosftError], str]] = {
    "mix": (run_mix, ConfigError, ""),
    "audit": (lambda data, out, _: run_audit(AuditSettings(uri=f"{data}/a.jsonl", out=out)), ConfigError, "clean"),
    "export": (lambda data, out, _: export(ExportSettings(data=data, to="nanochat", out=out)), ConfigError, ""),
    "train": (run_training, DataError, ""),
}


def write(uri: str, *numbers: int, key: str = "a.jsonl") -> None:
    open_store(uri).write(key, b"".join(talk(f"What is {n} and one?", f"It is {n + 1}, of course.") for n in numbers))


@pytest.mark.parametrize("stage", STAGES)
def test_a_finished_set_whose_bare_input_has_changed_is_refused(tmp_path: Path, stage: str) -> None:
    run, error, part = STAGES[stage]
    data, out = (str(tmp_path / name) for name in ("data", "out"))
    write(data, 1, 2, 3)
    run(data, out, tmp_path)
    before = read_manifest(open_store(join_uri(out, part)))
    write(data, 1, 2, 3)  # the same bytes anew
    run(data, out, tmp_path)
    write(data, 1, 2, 4)  # as many
    with pytest.raises(error, match=r"data\S*: has changed since .*out.* was finished: choose another --out"):
        run(data, out, tmp_path)
    write(data, 1, 2, 3)
    run(data, out, tmp_path)
    assert read_manifest(open_store(join_uri(out, part))) == before


def test_a_mixture_whose_pattern_matches_more_or_less_is_refused_and_one_whose_inputs_are_gone_is_finished(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, out = (str(tmp_path / name) for name in ("data", "out"))
    write(data, 1, 2, 3)
    write(data, 4, 5, key="b.jsonl")
    assert run_mix(data, out, tmp_path) is not None
    write(data, 6, key="c.jsonl")
    with pytest.raises(ConfigError, match=r"c\.jsonl: has come as an input since"):
        run_mix(data, out, tmp_path)
    for key in ("b.jsonl", "c.jsonl"):
        open_store(data).delete(key)
    with pytest.raises(ConfigError, match=r"b\.jsonl: is an input no more since"):
        run_mix(data, out, tmp_path)
    open_store(data).delete("a.jsonl")
    assert run_mix(data, out, tmp_path) is None
    assert "is finished, and is not compared with what it was made from" in caplog.text


@pytest.mark.parametrize("stage", STAGES)
def test_on_s3_a_finished_sets_inputs_are_told_by_their_etags_and_not_read_again(
    tmp_path: Path, bucket: str, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    run, error, part = STAGES[stage]
    data, out = join_uri(bucket, "data"), str(tmp_path / "out")
    write(data, 1, 2, 3)
    run(data, out, tmp_path)
    manifest = read_manifest(open_store(join_uri(out, part)))
    assert manifest is not None
    (parent,) = (parent for parent in manifest.parents if parent.uri.startswith("s3:"))
    size_bytes = len(open_store(data).read("a.jsonl"))
    assert (parent.etag or "").startswith(f'{size_bytes} "')
    proxy.requests.clear()
    run(data, out, tmp_path)
    reads = [request.path for request in proxy.requests if request.operation == "GET"]
    assert not [path for path in reads if path.endswith("a.jsonl")]
    write(data, 1, 2, 4)
    with pytest.raises(error, match=r"data\S*: has changed since"):
        run(data, out, tmp_path)


@pytest.mark.parametrize("stage", STAGES)
def test_an_object_replaced_between_its_listing_and_its_reading_is_an_error_that_names_it(
    tmp_path: Path, bucket: str, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    run, *_ = STAGES[stage]
    data, out = join_uri(bucket, "data"), str(tmp_path / "out")
    write(data, 1, 2, 3)
    replaced = Fault(before=lambda: write(data, 4, 5, 6))
    proxy.inject_when(lambda request: request.operation == "GET" and request.path.endswith("a.jsonl"), replaced)
    with pytest.raises(StoreError, match=r"data/a\.jsonl: was replaced .*: run the same command again"):
        run(data, out, tmp_path)
    run(data, out, tmp_path)  # all of it is of the new one


def test_a_local_file_written_to_while_it_is_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(talk("Hi", "Hello") * 40_000)
    (item,) = list_data_objects(str(path))
    rows = iter_lines(item)
    next(rows)
    time.sleep(0.02)  # a tick of the kernel's clock
    with path.open("r+b") as file:
        file.seek(-20, 2)
        file.write(b"x")
    with pytest.raises(StoreError, match=r"a\.jsonl: was replaced"):
        list(rows)
