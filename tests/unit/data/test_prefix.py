"""The run protocol of an output prefix: finished with the same settings, begun, committed with the manifest last."""

import pytest

from nanosft.data import OutputPrefix, list_data_objects
from nanosft.errors import ConfigError, DataError
from nanosft.manifest import Manifest
from nanosft.store import open_store

MANIFEST = Manifest(kind="mixture", name="tea", objects=(), settings={"herbs": ["mint"]})


@pytest.fixture
def prefix(tmp_path):
    return OutputPrefix(open_store(str(tmp_path / "out")), "brew", {"herbs": ["mint"]})


def test_what_is_finished_with_the_same_settings_is_found(prefix):
    assert prefix.find_finished() is None
    prefix.commit(MANIFEST)
    assert prefix.find_finished() == MANIFEST


def test_what_was_made_with_others_is_refused_by_the_first_that_differs(prefix):
    prefix.commit(MANIFEST)
    with pytest.raises(ConfigError, match=r"made with herbs=\['mint'\], now herbs=\['sage'\]"):
        OutputPrefix(prefix.store, "brew", {"herbs": ["sage"], "milk": True}).find_finished()


def test_readers_refuse_what_is_begun_and_believe_what_is_committed(prefix):
    prefix.store.write("a.jsonl", b"")
    prefix.begin(is_own=lambda key: key == "a.jsonl")
    prefix.store.write("b.jsonl", b"{}")
    with pytest.raises(DataError, match="unfinished"):
        list_data_objects(prefix.store.uri)
    prefix.commit(MANIFEST)
    assert list_data_objects(prefix.store.uri) == []
    assert [info.key for info in prefix.store.list()] == ["b.jsonl", "manifest.json"]


def test_only_keys_of_its_own_are_cleaned_up(prefix):
    for key in ("own-1.jsonl", "foreign.jsonl", "deep/own-1.jsonl"):
        prefix.store.write(key, b"{}")
    prefix.begin(is_own=lambda key: key.startswith("own-"))
    assert [info.key for info in prefix.store.list()] == ["deep/own-1.jsonl", "foreign.jsonl", "state/brew.json"]


def test_an_input_under_the_output_is_refused_whatever_its_uri_looks_like(prefix, tmp_path):
    prefix.check_apart([f"file://{tmp_path}/outside/a.jsonl", "s3://bucket/out/a.jsonl"])
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for uri in (
        f"file://{tmp_path}/out/a.jsonl",
        f"file://{tmp_path}/link/a.jsonl",
        f"file://{tmp_path}/./out/a.jsonl",
    ):
        with pytest.raises(ConfigError, match="choose another --out"):
            prefix.check_apart([uri])
