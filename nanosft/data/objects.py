"""What a URI of data means, for every command.

A URI means: a file, itself; a pattern with `*`, `**` or `?`, what it matches; a prefix with `manifest.json`, exactly
its objects; a prefix without one but with `shards/`, `rows/` or `state/`, a run not finished (DataError); any other
prefix, its own `.jsonl`, `.jsonl.gz`, `.jsonl.zst` and `.parquet` objects, not those below it.
"""

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Final, Literal, Self

from nanosft.data.prefix import read_manifest
from nanosft.errors import DataError
from nanosft.manifest import MANIFEST_KEY, Kind, Manifest
from nanosft.store import ObjectInfo, Store, open_object, open_store, unquote_name

PARQUET: Final = ".parquet"
DATA_SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".jsonl.zst", PARQUET)
_DATA_KINDS: Final[frozenset[Kind]] = frozenset({"generated", "generated-shard", "mixture", "audited", "exported-data"})
_UNFINISHED_NAMES: Final = frozenset({"rows", "shards", "state"})
"""Prefixes that only a run under way has beside it, as long as there is no manifest."""
_WILD: Final = re.compile(r"[*?]")


@dataclass(frozen=True, slots=True)
class DataObject:
    """One object of conversations, and what a manifest says of it (None where no manifest does), or else a listing."""

    store: Store
    key: str
    size_bytes: int
    sha256: str | None = None
    num_rows: int | None = None
    etag: str | None = None

    @classmethod
    def bare(cls, store: Store, info: ObjectInfo) -> Self:
        """An object that no manifest names: whoever reads it reads what was listed, or meets a StoreError."""
        return cls(store, info.key, info.size_bytes, etag=info.etag)

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Its bytes, as they are stored."""
        return self.store.open_read(self.key, etag=self.etag)

    @property
    def uri(self) -> str:
        """Its URI, for messages and lineage."""
        return self.store.uri_of(self.key)

    @property
    def unit(self) -> Literal["line", "row"]:
        """What messages call a conversation's place in it: Parquet has rows."""
        return "row" if self.key.endswith(PARQUET) else "line"

    def place(self, number: int) -> str:
        """Where a line or row stands, for messages: `s3://…/a.jsonl:line 17`; numbered from 1."""
        return f"{self.uri}:{self.unit} {number}"


def list_data_objects(uri: str) -> list[DataObject]:
    """The objects that a URI of data means, in reading order; see the module's docstring.

    Raises:
        DataError: Nothing is there, or what is there is unfinished or holds no conversations.
    """
    if _WILD.search(uri):
        return _match(uri)
    maybe_file = not uri.endswith("/")
    if maybe_file and uri.endswith(DATA_SUFFIXES) and (item := _find_file(uri)):
        return [item]
    store = open_store(uri)
    manifest = read_manifest(store)
    if manifest is not None:
        return _list_manifest(store, manifest)
    directory = store.list_directory()
    if unfinished := sorted(_UNFINISHED_NAMES.intersection(directory.names)):
        raise DataError(
            f"{store.uri}: unfinished: it has {unfinished[0]}/ but no {MANIFEST_KEY}: "
            "run the command that makes it again, it goes on where it stopped"
        )
    items = [DataObject.bare(store, info) for info in directory.objects if _is_data(info.key)]
    if items:
        return items
    is_there = directory.objects or directory.names
    if maybe_file and not is_there and (item := _find_file(uri)):
        return [item]
    there = "holds no conversations" if is_there else "nothing is there"
    raise DataError(f"{store.uri}: {there}: expected a file, a {MANIFEST_KEY}, or {', '.join(DATA_SUFFIXES)} objects")


def _match(uri: str) -> list[DataObject]:
    wild = _WILD.search(uri)
    assert wild is not None
    root, _, pattern = uri[: wild.start()].rpartition("/")
    pattern += uri[wild.start() :]
    if uri.startswith("file:"):
        pattern = unquote_name(pattern)
    store = open_store(root or ("/" if uri.startswith("/") else "."))
    expression = re.compile(_translate(pattern))
    prefix = _WILD.split(pattern)[0]
    items = [
        DataObject.bare(store, info)
        for info in store.list(prefix)
        if expression.fullmatch(info.key) and info.key.rpartition("/")[2] != MANIFEST_KEY
    ]
    if not items:
        raise DataError(f"{uri}: no object matches: check the pattern, or list the prefix")
    return items


def _translate(pattern: str) -> str:
    """The pattern as an expression for `fullmatch` that never goes back behind what a star was followed by.

    The earliest end of what follows a star leaves most to what comes after it, so that the first match is kept
    (atomic groups): 60 stars take no longer than one does for each of them.
    """
    chunks = [[_translate_fixed(fixed) for fixed in chunk.split("*")] for chunk in pattern.split("**")]
    chunks[-1][-1] += r"\Z"
    parts = [first + "".join(rf"(?>[^/]*?{fixed})" for fixed in rest) for first, *rest in chunks]
    return parts[0] + "".join(rf"(?>(?s:.)*?{part})" for part in parts[1:])


def _translate_fixed(text: str) -> str:
    return "".join("[^/]" if char == "?" else re.escape(char) for char in text)


def _is_data(key: str) -> bool:
    return key.endswith(DATA_SUFFIXES)


def _find_file(uri: str) -> DataObject | None:
    store, key = open_object(uri)
    info = store.stat(key)
    return None if info is None else DataObject.bare(store, info)


def _list_manifest(store: Store, manifest: Manifest) -> list[DataObject]:
    where = store.uri_of(MANIFEST_KEY)
    if manifest.kind not in _DATA_KINDS:
        raise DataError(f"{where}: is a {manifest.kind}, which holds no conversations")
    if not manifest.complete:
        raise DataError(f"{where}: unfinished: rows are missing: run the command that makes it again")
    return [
        DataObject(store, item.key, item.size_bytes, item.sha256, item.num_rows)
        for item in manifest.objects
        if _is_data(item.key)
    ]
