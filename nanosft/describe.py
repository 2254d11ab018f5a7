"""`nanosft describe`: a finished set, and all it was made from, read from manifests alone."""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from nanosft.data import read_manifest
from nanosft.errors import DataError, NanosftError
from nanosft.knowledge import SHIPPED, read_knowledge
from nanosft.manifest import EVALUATION_KEY, MANIFEST_KEY, Manifest, Parent, parse_manifest
from nanosft.settings.run import DescribeSettings
from nanosft.store import MissingObjectError, open_object, open_store

_LONGEST_VALUE = 80
_INDENT = "    "
_SCORES_KEY = "scores.json"
_SHOWN_FIGURES = ("identity", "claims another name", "claims another maker", "ended", "bits per byte: plain text")


@dataclass(frozen=True)
class Ancestor:
    """One step of a lineage.

    Attributes:
        uri: Where it lies, as its child named it.
        manifest: What is there; None where the state is any but "as recorded".
        state: "as recorded"; "changed since" (another manifest lies there now); "not checked" (data without a manifest
            is there: a base checkpoint, a file); "as shipped" (the knowledge base that comes with this nanosft);
            "gone"; or "cannot be read: " with the reason.
        parents: What it was made from.
    """

    uri: str
    manifest: Manifest | None
    state: str
    parents: tuple["Ancestor", ...] = ()


def run_describe(settings: DescribeSettings) -> None:
    """Print what lies at the URI and its ancestry.

    Raises:
        DataError: No manifest lies there.
    """
    lineage = read_lineage(settings.uri)
    evaluation = find_evaluation(lineage.uri)
    if settings.json_output:
        table = _as_json(lineage) | ({"evaluation": evaluation} if evaluation else {})
        sys.stdout.write(orjson.dumps(table, option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    for line in _draw(lineage):
        sys.stdout.write(line + "\n")
    if evaluation:
        figures = evaluation["figures"]
        said = [f"{name} {_show(figures[name])}" for name in _SHOWN_FIGURES if name in figures]
        sys.stdout.write(f"newest evaluation {evaluation['uri']}: {', '.join(said)}\n")


def find_evaluation(uri: str) -> dict[str, Any] | None:
    """The newest evaluation that a model's prefix knows of: its `uri`, and the model's `figures`; None without one.

    What is gone, unreadable, or has been made anew since is none.
    """
    try:
        note = orjson.loads(open_store(uri).read(EVALUATION_KEY))
        store = open_store(note["uri"])
        if hashlib.sha256(store.read(MANIFEST_KEY)).hexdigest() != note["sha256"]:
            return None
        scores = orjson.loads(store.read(_SCORES_KEY))
        return {"uri": note["uri"], "figures": scores["figures"][list(scores["models"])[-1]]}
    except (NanosftError, orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        return None


def read_lineage(uri: str) -> Ancestor:
    """The finished set at `uri` and its ancestors, each checked against the hash its child recorded.

    Raises:
        DataError: No manifest lies at `uri` itself; what is wrong with an ancestor is told in its `state`.
    """
    store = open_store(_prefix(uri))
    manifest = read_manifest(store)
    if manifest is None:
        raise DataError(f"{store.uri}: no {MANIFEST_KEY} here: nothing is finished under this prefix")
    return _with_parents(store.uri, manifest)


def _prefix(uri: str) -> str:
    """The prefix of a manifest that is named itself."""
    above, slash, name = uri.rpartition("/")
    return (above or slash or ".") if name == MANIFEST_KEY else uri


def _with_parents(uri: str, manifest: Manifest) -> Ancestor:
    return Ancestor(uri, manifest, "as recorded", tuple(map(_read_ancestor, manifest.parents)))


def _read_ancestor(parent: Parent) -> Ancestor:
    """What lies at a parent's URI. Only the manifest that was recorded is followed, so no lineage has a loop."""
    if parent.uri == SHIPPED and read_knowledge().sha256 == parent.sha256:
        return Ancestor(parent.uri, None, "as shipped")
    try:
        store = open_store(_prefix(parent.uri))
        try:
            content = store.read(MANIFEST_KEY)
        except MissingObjectError:
            return Ancestor(parent.uri, None, "not checked" if _is_there(parent.uri) else "gone")
        if hashlib.sha256(content).hexdigest() != parent.sha256:
            return Ancestor(parent.uri, None, "changed since")
        manifest = parse_manifest(content, where=store.uri_of(MANIFEST_KEY))
    except NanosftError as exc:
        return Ancestor(parent.uri, None, f"cannot be read: {exc}")
    return _with_parents(parent.uri, manifest)


def _is_there(uri: str) -> bool:
    """Whether the URI names an object, or a prefix that has any."""
    directory = open_store(uri).list_directory()
    if directory.objects or directory.names:
        return True
    store, key = open_object(uri)
    return store.exists(key)


def _draw(ancestor: Ancestor, indent: str = "") -> Iterator[str]:
    yield f"{indent}{ancestor.uri}" + ("" if ancestor.state == "as recorded" else f"  ({ancestor.state})")
    if ancestor.manifest is not None:
        for line in _facts(ancestor.manifest):
            yield f"{indent}  {line}"
    for parent in ancestor.parents:
        yield from _draw(parent, indent + _INDENT)


def _facts(manifest: Manifest) -> Iterator[str]:
    size_bytes = sum(item.size_bytes for item in manifest.objects)
    yield f"{manifest.kind} {manifest.name!r}, nanosft {manifest.nanosft_version}, manifest {manifest.sha256[:12]}"
    if not manifest.complete:
        yield "unfinished: rows are missing"
    yield f"{len(manifest.objects)} objects, {size_bytes:,} bytes, {manifest.num_rows:,} rows"
    if manifest.cost_usd is not None:
        yield f"cost {manifest.cost_usd:.6f} USD"
    for name, table in (("counts", manifest.counts), ("settings", manifest.settings)):
        said = [f"{key}={_shorten(value)}" for key, value in sorted(table.items()) if value is not None]
        if said:
            yield f"{name} {', '.join(said)}"


def _show(interval: dict[str, float]) -> str:
    return f"{interval['mean']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


def _shorten(value: object) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _as_json(ancestor: Ancestor) -> dict[str, object]:
    return {
        "uri": ancestor.uri,
        "state": ancestor.state,
        "manifest": ancestor.manifest.model_dump(mode="json") if ancestor.manifest else None,
        "parents": [_as_json(parent) for parent in ancestor.parents],
    }
