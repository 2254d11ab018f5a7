"""Where rows come from: a recipe's URIs as objects, and objects as batches of whole lines, streamed.

Objects are read in order of their URI, so the order of a listing or of a recipe's list of URIs changes nothing.
"""

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import orjson

from nanosft.dataset import DataObject, list_data_objects, read_ahead, read_blocks, read_manifest
from nanosft.errors import DataError
from nanosft.manifest import Parent
from nanosft.store import Store, open_object, open_store

if TYPE_CHECKING:
    import hashlib

BATCH_BYTES: Final = 1 << 20
"""Least bytes of lines that one worker gets at a time: enough to make NumPy's calls cheap, small beside any limit."""
_PARQUET: Final = ".parquet"
_PARQUET_ROWS: Final = 512
_WILD: Final = re.compile(r"[*?]")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole lines of one object.

    Attributes:
        source: The source's place in the recipe.
        uri: The object's.
        first: Number of the first line, from 1.
        unit: What errors call a line: Parquet has rows.
        data: The lines; the last may lack its end.
    """

    source: int
    uri: str
    first: int
    unit: Literal["line", "row"]
    data: bytes


@dataclass(frozen=True, slots=True)
class Inputs:
    """A source's objects in reading order, and the manifests they were found by.

    Attributes:
        objects: Sorted by URI, each once.
        manifests: Of the prefixes that have one; objects without are named by their own hash.
        bare: URIs of the objects that no manifest names.
    """

    objects: tuple[DataObject, ...]
    manifests: tuple[Parent, ...]
    bare: frozenset[str]


def find_inputs(uris: Iterable[str]) -> Inputs:
    """List what URIs mean: objects, prefixes, and patterns with `*`, `**` and `?`.

    Raises:
        DataError: One of them means nothing, or a run that is unfinished.
    """
    found: dict[str, DataObject] = {}
    manifests: dict[str, Parent] = {}
    bare: set[str] = set()
    for uri in uris:
        items = _match(uri) if _WILD.search(uri) else _list(uri)
        manifest = read_manifest(items[0].store) if any(item.sha256 for item in items) else None
        if manifest is not None:
            manifests[uri] = Parent(uri=uri, sha256=manifest.sha256)
        for item in items:
            found[item.uri] = item
            if manifest is None:
                bare.add(item.uri)
    objects = tuple(found[uri] for uri in sorted(found))
    return Inputs(objects, tuple(manifests[uri] for uri in sorted(manifests)), frozenset(bare))


def read_batches(item: DataObject, *, source: int, digest: "hashlib._Hash | None" = None) -> Iterator[Batch]:
    """An object's lines in batches of about `BATCH_BYTES`.

    Args:
        item: The object: JSONL, plain or compressed, or Parquet.
        source: The source's place in the recipe.
        digest: Updated with the object's bytes as they are stored.

    Raises:
        DataError: It is missing, or not what its manifest or its check sums say.
    """
    if item.key.endswith(_PARQUET):
        yield from _read_parquet(item, source, digest)
        return
    first, pieces, size = 1, list[bytes](), 0
    for block in _without_mark(read_ahead(read_blocks(item, digest))):
        pieces.append(block)
        size += len(block)
        if size < BATCH_BYTES:
            continue
        data = b"".join(pieces)
        cut = data.rfind(b"\n") + 1
        if cut:
            yield Batch(source, item.uri, first, "line", data[:cut])
            first += data.count(b"\n", 0, cut)
        pieces, size = [data[cut:]], len(data) - cut
    if data := b"".join(pieces):
        yield Batch(source, item.uri, first, "line", data)


def _without_mark(blocks: Iterator[bytes]) -> Iterator[bytes]:
    first = next(blocks, b"")
    yield first.removeprefix(_BYTE_ORDER_MARK)
    yield from blocks


def _read_parquet(item: DataObject, source: int, digest: "hashlib._Hash | None") -> Iterator[Batch]:
    import pyarrow as pa  # noqa: PLC0415 - 0.1 s that JSONL need not pay
    import pyarrow.parquet as pq  # noqa: PLC0415

    if digest is not None:
        with item.store.open_read(item.key) as stream:
            while block := stream.read(BATCH_BYTES):
                digest.update(block)
    try:
        with pq.ParquetFile(_RangeFile(item), pre_buffer=False) as file:
            first = 1
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                rows = batch.to_pylist()
                yield Batch(source, item.uri, first, "row", b"\n".join(map(orjson.dumps, rows)))
                first += len(rows)
    except (pa.ArrowException, orjson.JSONEncodeError) as exc:
        reason = str(exc).splitlines()[0]
        raise DataError(f"{item.uri}: not a Parquet file of conversations: {reason}") from exc


class _RangeFile(io.RawIOBase):
    """An object as a seekable file, each read one ranged request."""

    def __init__(self, item: DataObject) -> None:
        self._item = item
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._item.size_bytes}[whence]
        self._place = start + offset
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        left = self._item.size_bytes - self._place
        data = self._item.store.read_range(
            self._item.key, self._place, left if size is None or size < 0 else min(size, left)
        )
        self._place += len(data)
        return data


def _list(uri: str) -> list[DataObject]:
    if uri.endswith(_PARQUET):
        store, key = open_object(uri)
        info = store.stat(key)
        if info is not None:
            return [DataObject(store, key, info.size_bytes)]
    try:
        return list_data_objects(uri)
    except DataError:
        parquet = _list_parquet(open_store(uri))
        if not parquet:
            raise
        return parquet


def _list_parquet(store: Store) -> list[DataObject]:
    if read_manifest(store) is not None:
        return []
    directory = store.list_directory()
    if {"rows", "shards", "state"} & set(directory.names):
        return []
    return [DataObject(store, info.key, info.size_bytes) for info in directory.objects if info.key.endswith(_PARQUET)]


def _match(uri: str) -> list[DataObject]:
    wild = _WILD.search(uri)
    assert wild is not None
    root, _, pattern = uri[: wild.start()].rpartition("/")
    pattern += uri[wild.start() :]
    store = open_store(root or ("/" if uri.startswith("/") else "."))
    expression = re.compile(_translate(pattern))
    prefix = pattern[: _WILD.search(pattern).start()]  # type: ignore[union-attr]  # it has one
    items = [
        DataObject(store, info.key, info.size_bytes) for info in store.list(prefix) if expression.fullmatch(info.key)
    ]
    if not items:
        raise DataError(f"{uri}: no object matches: check the pattern, or list the prefix")
    return items


def _translate(pattern: str) -> str:
    pieces = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(pieces.get(piece) or re.escape(piece) for piece in re.split(r"(\*\*|\*|\?)", pattern))
