"""`nanosft describe`: a finished set, and all it was made from, read from manifests alone."""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import orjson
from rich.console import Console
from rich.tree import Tree

from nanosft.errors import DataError
from nanosft.manifest import MANIFEST_KEY, Manifest, Parent, parse_manifest
from nanosft.settings.describe import DescribeSettings
from nanosft.store import open_object, open_store


@dataclass(frozen=True)
class Ancestor:
    """One step of a lineage.

    Attributes:
        uri: Where it lies, as its child named it.
        manifest: What is there; None when it is a single object, or gone.
        state: "as recorded", "changed since" (another manifest lies there now), "an object" (there, and too large to
            hash here: a base checkpoint), or "gone".
        parents: What it was made from.
    """

    uri: str
    manifest: Manifest | None
    state: str
    parents: tuple["Ancestor", ...]


def run_describe(settings: DescribeSettings) -> None:
    """Print what lies at the URI and its ancestry.

    Raises:
        DataError: No manifest lies there.
    """
    lineage = read_lineage(settings.uri)
    if settings.json_output:
        sys.stdout.write(orjson.dumps(_as_json(lineage), option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    tree = Tree("[bold]lineage[/]")
    _draw(tree, lineage)
    Console(soft_wrap=True).print(tree)


def read_lineage(uri: str) -> Ancestor:
    """The finished set at `uri` and its ancestors, each checked against the hash its child recorded.

    Raises:
        DataError: No manifest lies at `uri` itself; an ancestor that is gone is reported in its `state`.
    """
    root = uri.rstrip("/").removesuffix("/" + MANIFEST_KEY)
    store = open_store(root)
    if not store.exists(MANIFEST_KEY):
        raise DataError(f"{store.uri}: no {MANIFEST_KEY} here: nothing is finished under this prefix")
    manifest = parse_manifest(store.read(MANIFEST_KEY), where=store.uri_of(MANIFEST_KEY))
    return Ancestor(store.uri, manifest, "as recorded", tuple(map(_read_ancestor, manifest.parents)))


def _read_ancestor(parent: Parent) -> Ancestor:
    uri = parent.uri.rstrip("/").removesuffix("/" + MANIFEST_KEY)
    try:
        store = open_store(uri)
        if store.exists(MANIFEST_KEY):
            content = store.read(MANIFEST_KEY)
            manifest = parse_manifest(content, where=store.uri_of(MANIFEST_KEY))
            state = "as recorded" if hashlib.sha256(content).hexdigest() == parent.sha256 else "changed since"
            return Ancestor(uri, manifest, state, tuple(map(_read_ancestor, manifest.parents)))
        parent_store, key = open_object(uri)
        state = "an object" if parent_store.exists(key) else "gone"
    except DataError:  # the bucket itself is gone
        state = "gone"
    return Ancestor(uri, None, state, ())


def _draw(tree: Tree, ancestor: Ancestor) -> None:
    branch = tree.add(
        f"[bold]{ancestor.uri}[/]"
        + ("" if ancestor.state in {"as recorded", "an object"} else f" [red]({ancestor.state})[/]")
    )
    if ancestor.manifest is not None:
        for line in _facts(ancestor.manifest):
            branch.add(line)
    for parent in ancestor.parents:
        _draw(branch, parent)


def _facts(manifest: Manifest) -> Iterator[str]:
    size_bytes = sum(item.size_bytes for item in manifest.objects)
    yield f"{manifest.kind} {manifest.name!r}, nanosft {manifest.nanosft_version}, manifest {manifest.sha256[:12]}"
    yield f"{len(manifest.objects)} objects, {size_bytes:,} bytes, {manifest.num_rows:,} rows"
    if manifest.cost_usd is not None:
        yield f"cost {manifest.cost_usd:.6f} USD"
    for name, table in (("counts", manifest.counts), ("settings", manifest.settings)):
        if table:
            yield f"[dim]{name}[/] " + ", ".join(f"{key}={_short(value)}" for key, value in sorted(table.items()))


def _short(value: object) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else text[:77] + "…"  # noqa: PLR2004 - a line of a terminal


def _as_json(ancestor: Ancestor) -> dict[str, object]:
    return {
        "uri": ancestor.uri,
        "state": ancestor.state,
        "manifest": ancestor.manifest.model_dump(mode="json") if ancestor.manifest else None,
        "parents": [_as_json(parent) for parent in ancestor.parents],
    }
