"""Describe: what is finished under a prefix, and each step of what it was made from, checked against the records."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from nanosft.data import put_manifest
from nanosft.describe import run_describe
from nanosft.errors import DataError
from nanosft.lineage import Ancestor, read_lineage
from nanosft.manifest import Manifest, ManifestObject, Parent
from nanosft.settings.run import DescribeSettings
from nanosft.store import open_store

SHA256 = "0" * 64


def finish(folder: Path, *parents: Parent, **changes: Any) -> Parent:
    """Put a manifest there; returns what a child names it by."""
    manifest = Manifest(**{"kind": "mixture", "name": folder.name, "objects": (), "parents": parents, **changes})
    store = open_store(str(folder))
    put_manifest(store, manifest)
    return Parent(uri=store.uri, sha256=manifest.sha256)


def flatten(ancestor: Ancestor) -> list[tuple[str, str]]:
    """Name and state of a step and all before it."""
    return [
        (ancestor.uri.rpartition("/")[2], ancestor.state),
        *(item for parent in ancestor.parents for item in flatten(parent)),
    ]


def test_a_lineage_goes_back_to_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generated = finish(tmp_path / "generated", kind="generated")
    mixture = finish(tmp_path / "mixture", generated)
    finish(tmp_path / "run", mixture, kind="model")
    expected = [("run", "as recorded"), ("mixture", "as recorded"), ("generated", "as recorded")]
    monkeypatch.chdir(tmp_path / "run")
    there = str(tmp_path / "run")
    for uri in (there, f"{there}/", f"{there}/manifest.json", f"file://{there}", "manifest.json", "."):
        assert flatten(read_lineage(uri)) == expected


def test_what_is_not_finished_is_a_data_error(tmp_path: Path) -> None:
    for uri in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match=r"no manifest\.json here"):
            read_lineage(str(uri))


def test_a_parent_made_again_is_told_and_not_followed(tmp_path: Path) -> None:
    first = finish(tmp_path / "generated", Parent(uri=str(tmp_path / "old"), sha256=SHA256))
    finish(tmp_path / "mixture", first)
    finish(tmp_path / "generated", Parent(uri=str(tmp_path / "new"), sha256=SHA256), settings={"seed": 2})
    assert flatten(read_lineage(str(tmp_path / "mixture"))) == [
        ("mixture", "as recorded"),
        ("generated", "changed since"),
    ]


def test_a_lineage_that_bites_its_tail_ends(tmp_path: Path) -> None:
    one = finish(tmp_path / "one")
    two = finish(tmp_path / "two", one)
    finish(tmp_path / "one", two)
    assert flatten(read_lineage(str(tmp_path / "one"))) == [
        ("one", "as recorded"),
        ("two", "as recorded"),
        ("one", "changed since"),
    ]


def test_files_and_folders_without_a_manifest_are_there_or_gone(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("rows.jsonl", b"x")
    store.write("folder/rows.jsonl", b"x")
    names = ["rows.jsonl", "folder", "absent.jsonl"]
    finish(tmp_path / "mixture", *(Parent(uri=store.uri_of(name), sha256=SHA256) for name in names))
    assert flatten(read_lineage(str(tmp_path / "mixture")))[1:] == [
        ("rows.jsonl", "not checked"),
        ("folder", "not checked"),
        ("absent.jsonl", "gone"),
    ]


def test_a_parent_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    good = finish(tmp_path / "good")
    bad = Parent(uri="gs://bucket/other", sha256=SHA256)
    finish(tmp_path / "mixture", bad, good)
    (_, told, other) = flatten(read_lineage(str(tmp_path / "mixture")))
    assert told[1].startswith("cannot be read: 'gs://bucket/other': no store")
    assert other == ("good", "as recorded")


@pytest.mark.usefixtures("bucket")
def test_a_parents_bucket_that_is_gone_is_told(tmp_path: Path) -> None:
    finish(tmp_path / "mixture", Parent(uri="s3://no-such-bucket/set", sha256=SHA256))
    (parent,) = read_lineage(str(tmp_path / "mixture")).parents
    assert parent.state.startswith("cannot be read: s3://no-such-bucket/set/manifest.json: bucket 'no-such-bucket'")


def test_the_text_shows_all_as_people_read_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    generated = finish(tmp_path / "[bold]generated[/x]", kind="generated", cost_usd=0.25)
    objects = (ManifestObject(key="train.jsonl", size_bytes=12_345, sha256=SHA256, num_rows=17),)
    settings = {
        "note": "[/red] " + "x" * 200,
        "num": 5000,
        "knowledge": SHA256,
        "temperature": 0.5,
        "tokenizer": None,
        "tone": "",
        "gates": ["style", "tokens"],
        "deduplicate": {"exact": True},
    }
    finish(tmp_path / "mixture", generated, objects=objects, settings=settings, complete=False)
    run_describe(DescribeSettings(uri=str(tmp_path / "mixture")))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (tmp_path / "mixture").as_uri()
    assert lines[1].startswith("  mixture 'mixture', nanosft ")
    assert lines[2:4] == ["  unfinished: rows are missing", "  1 objects, 12,345 bytes, 17 rows"]
    first = lines.index(f"    {generated.uri}")
    said = " ".join(" ".join(lines[4:first]).split())
    assert said.startswith(
        "settings: deduplicate exact yes; gates style, tokens; knowledge 000000000000; note [/red] xx"
    )
    assert said.endswith("xx…; num 5,000; temperature 0.5")
    assert max(map(len, lines[4:first])) <= 80
    assert lines[-1] == "      cost 0.250000 USD"


def test_json_has_the_manifests_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generated = finish(tmp_path / "generated", kind="generated")
    finish(tmp_path / "mixture", generated, settings={"note": "x" * 200})
    run_describe(DescribeSettings(uri=str(tmp_path / "mixture"), json_output=True))
    found = orjson.loads(capsys.readouterr().out)
    assert found["uri"] == (tmp_path / "mixture").as_uri()
    assert found["manifest"] == orjson.loads((tmp_path / "mixture" / "manifest.json").read_bytes())
    assert [parent["state"] for parent in found["parents"]] == ["as recorded"]


def test_a_lineage_of_26_sets_that_name_a_parent_twice_is_told_at_once(tmp_path: Path) -> None:
    parent = finish(tmp_path / "0")
    for number in range(1, 27):
        parent = finish(tmp_path / str(number), parent, parent)
    found = flatten(read_lineage(str(tmp_path / "26")))
    assert len(found) == 1 + 2 * 26
    assert [state for _, state in found].count("told above") == 26


def test_a_long_chain_of_sets_is_followed_a_hundred_back(tmp_path: Path, capsys: Any) -> None:
    parent = finish(tmp_path / "0")
    for number in range(1, 110):
        parent = finish(tmp_path / str(number), parent)
    found = flatten(read_lineage(str(tmp_path / "109")))
    assert [state for _, state in found] == ["as recorded"] * 101 + ["not followed"]
    run_describe(DescribeSettings(uri=str(tmp_path / "109"), json_output=True))
    assert orjson.loads(capsys.readouterr().out)["state"] == "as recorded"
