"""A plan's record is one object a plan, whoever puts it."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nanosft.data import put_manifest, read_manifest
from nanosft.errors import ConfigError
from nanosft.generate.records import finalize, finalize_plan
from nanosft.generate.records.plans import PlanRecord, register_plan
from nanosft.manifest import Manifest
from nanosft.store import Store, Written, open_store


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system on which nothing can be put if absent."""

    def refuse(_source: object, _target: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr("os.link", refuse)


@pytest.fixture(params=["links", "no_links"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "no_links":
        request.getfixturevalue("no_links")
    return open_store(str(tmp_path))


def record(num: int = 10, seed: int = 0) -> PlanRecord:
    return PlanRecord(num, {"seed": seed}, ())


def test_shards_of_one_plan_put_one_record(store: Store) -> None:
    assert register_plan(store, record()) == register_plan(store, record()) == record()
    assert [info.key for info in store.list()] == ["plan/00000010.json"]


def test_another_plan_is_refused_naming_the_difference(store: Store) -> None:
    register_plan(store, record())
    with pytest.raises(ConfigError, match="seed=0, now seed=1"):
        register_plan(store, record(seed=1))


@pytest.mark.usefixtures("no_links")
def test_a_plan_that_is_put_over_ours_is_met_when_ours_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = open_store(str(tmp_path)), open_store(str(tmp_path))

    def write_and_be_replaced(key: str, data: bytes) -> Written:
        other.write(key, data.replace(b'"seed":0', b'"seed":1'))
        return Written(key, len(data), "")

    monkeypatch.setattr(store, "write", write_and_be_replaced)
    with pytest.raises(ConfigError, match="seed=1, now seed=0"):
        register_plan(store, record())


def test_the_manifest_of_a_larger_plan_begun_meanwhile_counts_its_facts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was put by who finished the smaller plan, and said nothing of the facts that answers state."""
    store = open_store(str(tmp_path))
    register_plan(store, record())
    every_row_given_up = SimpleNamespace(
        count=lambda rows: (0, len(rows)), objects={}, tally=SimpleNamespace(counts=dict, cost_usd=0.0)
    )
    monkeypatch.setattr(finalize, "read_state", lambda *_: every_row_given_up)

    def put_and_begin(store: Store, manifest: Manifest) -> None:
        put_manifest(store, manifest)
        register_plan(store, record(20))

    monkeypatch.setattr(finalize, "put_manifest", put_and_begin)
    stated: Any = SimpleNamespace(count=lambda _: {"a fact": 0})
    with pytest.raises(ConfigError):
        finalize_plan(store, record(), name="x", threshold=None, stated=stated)
    manifest = read_manifest(store)
    assert manifest is not None
    assert (manifest.counts["rows"]["planned"], manifest.counts["facts"]) == (20, {"a fact": 0})
