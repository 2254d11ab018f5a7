"""A manifest is the same whoever writes it, and no other is believed."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nanosft.errors import ConfigError, DataError
from nanosft.manifest import (
    FORMAT,
    Manifest,
    ManifestObject,
    Parent,
    check_same_settings,
    parse_manifest,
    sort_objects,
)

WHERE = "s3://bucket/mix/manifest.json"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex)
COUNTS = st.integers(0, 2**62)
OBJECTS = st.lists(st.builds(ManifestObject, key=TEXT, size_bytes=COUNTS, sha256=HASHES, num_rows=st.none() | COUNTS))
JSON = st.recursive(
    st.none() | st.booleans() | COUNTS | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
MANIFESTS = st.builds(
    Manifest,
    kind=st.sampled_from(["generated", "generated-shard", "mixture", "state", "model"]),
    name=TEXT,
    objects=OBJECTS.map(lambda items: tuple({item.key: item for item in items}.values())),
    counts=st.dictionaries(TEXT, JSON, max_size=3),
    cost_usd=st.none() | st.floats(0, 1e6),
    parents=st.lists(st.builds(Parent, uri=TEXT, sha256=HASHES), max_size=3).map(tuple),
    settings=st.dictionaries(TEXT, JSON, max_size=3),
    complete=st.booleans(),
)


def make_object(key: str, num_rows: int | None = 1) -> ManifestObject:
    return ManifestObject(key=key, size_bytes=10, sha256="0" * 64, num_rows=num_rows)


def make_manifest(**changes: Any) -> Manifest:
    return Manifest(**{"kind": "mixture", "name": "run", "objects": (), **changes})


@given(MANIFESTS)
def test_bytes_parse_back_to_an_equal_manifest(manifest: Manifest) -> None:
    data = manifest.to_bytes()
    assert data.endswith(b"}\n")
    found = parse_manifest(data, where=WHERE)
    assert found == manifest
    assert found.to_bytes() == data
    assert found.sha256 == manifest.sha256


@given(MANIFESTS, st.randoms(use_true_random=False))
def test_order_of_objects_and_settings_does_not_matter(manifest: Manifest, random: Any) -> None:
    objects, settings = list(manifest.objects), list(manifest.settings.items())
    random.shuffle(objects)
    random.shuffle(settings)
    other = Manifest(**{**dict(manifest), "objects": tuple(objects), "settings": dict(settings)})
    assert other.to_bytes() == manifest.to_bytes()


def test_objects_are_in_key_order() -> None:
    manifest = make_manifest(objects=(make_object("val-00000"), make_object("train-00001"), make_object("train-00000")))
    assert [item.key for item in manifest.objects] == ["train-00000", "train-00001", "val-00000"]
    assert sort_objects(reversed(manifest.objects)) == manifest.objects


def test_an_object_is_named_once() -> None:
    with pytest.raises(ValidationError, match="'a' is named twice"):
        make_manifest(objects=(make_object("a"), make_object("b"), make_object("a")))


def test_rows_are_those_of_all_objects() -> None:
    assert make_manifest(objects=(make_object("a", 3), make_object("b", None), make_object("c", 4))).num_rows == 7


def test_settings_are_held_as_they_are_written() -> None:
    settings = {"pair": (1, 2), "path": Path("a/b"), "nested": {"pairs": [(1, 2)]}}
    manifest = make_manifest(settings=settings)
    assert manifest.settings == {"pair": [1, 2], "path": "a/b", "nested": {"pairs": [[1, 2]]}}
    assert parse_manifest(manifest.to_bytes(), where=WHERE) == manifest
    check_same_settings(manifest, settings, where=WHERE)


class TestSettings:
    """A rerun with other settings is told which."""

    def test_equal_ones_pass(self) -> None:
        check_same_settings(make_manifest(settings={"seed": 1, "lr": 0.1}), {"lr": 0.1, "seed": 1}, where=WHERE)

    @pytest.mark.parametrize(
        ("now", "says"),
        [
            ({"seed": 2, "tau": 1}, "made with seed=1, now seed=2"),
            ({"seed": 1, "tau": 2}, "made with tau=1, now tau=2"),
            ({"seed": 1}, "made with tau=1, now tau=None"),
            ({"alpha": 0, "seed": 1, "tau": 1}, "made with alpha=None, now alpha=0"),
        ],
    )
    def test_the_first_difference_is_named(self, now: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigError, match=says) as caught:
            check_same_settings(make_manifest(settings={"seed": 1, "tau": 1}), now, where=WHERE)
        assert str(caught.value).startswith(f"{WHERE}: ")
        assert "--out" in str(caught.value)


class TestRefused:
    """What is no manifest is an error that names it."""

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"format": FORMAT + 1}, rf"manifest format {FORMAT + 1} is newer than this nanosft reads \({FORMAT}\)"),
            ({"format": FORMAT + 1.0, "new_key": 1}, "is newer than"),
            ({"format": "1x"}, "not a manifest: format: "),
            ({"format": str(FORMAT + 1)}, "not a manifest: format: "),
            ({"format": 0}, "not a manifest: format: "),
            ({"new_key": 1}, "not a manifest: new_key: "),
            ({"kind": "cake"}, "not a manifest: kind: "),
            ({"objects": [{"key": "a"}]}, "not a manifest: objects.0.size_bytes: "),
            ({"objects": [{"key": "a", "size_bytes": 1, "sha256": "zz"}]}, "not a manifest: objects.0.sha256: "),
            ({"objects": [{"key": "a", "size_bytes": -1, "sha256": "0" * 64}]}, "not a manifest: objects.0.size_bytes"),
        ],
    )
    def test_fields(self, change: dict[str, Any], says: str) -> None:
        value = {**json.loads(make_manifest().to_bytes()), **change}
        with pytest.raises(DataError, match=says) as caught:
            parse_manifest(json.dumps(value).encode(), where=WHERE)
        assert str(caught.value).startswith(f"{WHERE}: ")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b"17", b"{}", b"null"])
    def test_shapes(self, data: bytes) -> None:
        with pytest.raises(DataError, match=f"{WHERE}: not a manifest: "):
            parse_manifest(data, where=WHERE)


def test_a_manifest_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        setattr(make_manifest(), "name", "other")  # noqa: B010 - the type checker refuses it already
