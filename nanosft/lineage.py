"""A finished set and all that it was made from, and a model's newest evaluation, read from manifests alone."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from nanosft.data import read_manifest
from nanosft.errors import DataError, NanosftError
from nanosft.knowledge import SHIPPED, read_knowledge
from nanosft.manifest import EVALUATION_KEY, MANIFEST_KEY, Manifest, Parent, parse_manifest
from nanosft.store import MissingObjectError, Store, open_object, open_store

_SCORES_KEY = "scores.json"
_MAX_DEPTH = 100


@dataclass(frozen=True)
class Ancestor:
    """One step of a lineage.

    Attributes:
        uri: Where it lies, as its child named it.
        manifest: What is there; None where the state is any but "as recorded".
        state: "as recorded"; "changed since" (another manifest lies there now); "not checked" (data without a manifest
            is there: a base checkpoint, a file); "as shipped" (the knowledge base that comes with this nanosft);
            "told above" (its manifest stands before in the tree, which is therefore no larger than the manifests
            are); "not followed" (a hundred generations back); "gone"; or "cannot be read: " with the reason.
        parents: What it was made from.
        made_s: When its manifest was put, in seconds since 1970; None where nothing tells.
    """

    uri: str
    manifest: Manifest | None
    state: str
    parents: tuple["Ancestor", ...] = ()
    made_s: float | None = None

    def walk(self) -> Iterator["Ancestor"]:
        """Itself, then all that it was made from, a child before its parents."""
        yield self
        for parent in self.parents:
            yield from parent.walk()


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
    except (NanosftError, orjson.JSONDecodeError, KeyError, TypeError, IndexError, AttributeError):
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
    return trace_parents(store.uri, manifest, made_s=_made_s(store))


def trace_parents(uri: str, manifest: Manifest, *, made_s: float | None = None) -> Ancestor:
    """The ancestry of what a manifest at hand is of, such as that of a saved state; raises nothing."""
    return _trace(uri, manifest, made_s, set(), 0)


def _trace(uri: str, manifest: Manifest, made_s: float | None, told: set[str], depth: int) -> Ancestor:
    """The tree; `told` has the hashes of the manifests that stand in it already."""
    parents = tuple(_read_ancestor(parent, told, depth + 1) for parent in manifest.parents)
    return Ancestor(uri, manifest, "as recorded", parents, made_s)


def _made_s(store: Store) -> float | None:
    info = store.stat(MANIFEST_KEY)
    return info.modified_s if info is not None else None


def _prefix(uri: str) -> str:
    """The prefix of a manifest that is named itself."""
    above, slash, name = uri.rpartition("/")
    return (above or slash or ".") if name == MANIFEST_KEY else uri


def _read_ancestor(parent: Parent, told: set[str], depth: int) -> Ancestor:
    """What lies at a parent's URI. Only the manifest that was recorded is followed, so no lineage has a loop."""
    if parent.sha256 in told or depth > _MAX_DEPTH:
        return Ancestor(parent.uri, None, "told above" if parent.sha256 in told else "not followed")
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
    told.add(parent.sha256)
    return _trace(parent.uri, manifest, _made_s(store), told, depth)


def _is_there(uri: str) -> bool:
    """Whether the URI names an object, or a prefix that has any."""
    directory = open_store(uri).list_directory()
    if directory.objects or directory.names:
        return True
    store, key = open_object(uri)
    return store.exists(key)
