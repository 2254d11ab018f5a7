"""Where rows come from: a recipe's URIs as objects, and objects as batches of whole lines, streamed.

Objects are read in order of their URI, so the order of a listing or of a recipe's list of URIs changes nothing.
"""

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import unquote

import numpy as np
import orjson

from nanosft.data.conversations import (
    DATA_SUFFIXES,
    UNFINISHED_NAMES,
    DataObject,
    list_data_objects,
    read_ahead,
    read_blocks,
    read_manifest,
)
from nanosft.errors import DataError
from nanosft.manifest import MANIFEST_KEY, Parent
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
        pieces: The lines, cut anywhere; the last may lack its end. None where they are in a file.
        path: The file.
        size_bytes: Of all lines.
    """

    source: int
    uri: str
    first: int
    unit: Literal["line", "row"]
    pieces: tuple[bytes, ...] | None
    path: Path | None = None
    size_bytes: int = 0

    def put(self, path: Path) -> "Batch":
        """The batch with its lines in a file, which may hold others from before: a shorter way than through a pipe."""
        assert self.pieces is not None
        with path.open("r+b" if path.exists() else "wb") as file:
            size_bytes = sum(map(file.write, self.pieces))
        return replace(self, pieces=None, path=path, size_bytes=size_bytes)

    def iter_lines(self) -> Iterator[tuple[str, bytes]]:
        """Lines that are not blank, each with what errors call it."""
        for number, raw in enumerate(self.take().split(b"\n"), self.first):
            if line := raw.strip(b" \t\r"):
                yield f"{self.uri}:{self.unit} {number}", line

    def take(self) -> bytes:
        """The lines."""
        if self.pieces is not None:
            return b"".join(self.pieces)
        assert self.path is not None
        with self.path.open("rb") as file:
            return file.read(self.size_bytes)


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
        size += len(block)
        cut = block.rfind(b"\n") + 1 if size >= BATCH_BYTES else 0
        pieces.append(block[:cut] if cut else block)
        if cut:
            yield Batch(source, item.uri, first, "line", tuple(pieces))
            first += sum(map(_count_ends, pieces))
            pieces = [block[cut:]]
            size = len(pieces[0])
    if any(pieces):
        yield Batch(source, item.uri, first, "line", tuple(pieces))


def _count_ends(block: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n")))  # a third of the time of `bytes.count`


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
                lines = [orjson.dumps(row, default=repr) for row in batch.to_pylist()]
                yield Batch(source, item.uri, first, "row", (b"\n".join(lines),))
                first += len(lines)
    except (pa.ArrowException, orjson.JSONEncodeError, OSError, UnicodeDecodeError) as exc:
        reason = str(exc).partition("\n")[0]
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
        items = list_data_objects(uri)
    except DataError:
        if items := _list_parquet(open_store(uri)):
            return items
        raise
    is_file = uri.endswith(DATA_SUFFIXES) and len(items) == 1
    return items if is_file or any(item.sha256 for item in items) else items + _list_parquet(open_store(uri))


def _list_parquet(store: Store) -> list[DataObject]:
    if read_manifest(store) is not None:
        return []
    directory = store.list_directory()
    if UNFINISHED_NAMES & set(directory.names):
        return []
    return [DataObject(store, info.key, info.size_bytes) for info in directory.objects if info.key.endswith(_PARQUET)]


def _match(uri: str) -> list[DataObject]:
    wild = _WILD.search(uri)
    assert wild is not None
    root, _, pattern = uri[: wild.start()].rpartition("/")
    pattern += uri[wild.start() :]
    if uri.startswith("file:"):
        pattern = unquote(pattern)
    store = open_store(root or ("/" if uri.startswith("/") else "."))
    expression = re.compile(_translate(pattern))
    prefix = _WILD.split(pattern)[0]
    items = [
        DataObject(store, info.key, info.size_bytes)
        for info in store.list(prefix)
        if expression.fullmatch(info.key) and info.key.rpartition("/")[2] != MANIFEST_KEY
    ]
    if not items:
        raise DataError(f"{uri}: no object matches: check the pattern, or list the prefix")
    return items


def _translate(pattern: str) -> str:
    pieces = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(pieces.get(piece) or re.escape(piece) for piece in re.split(r"(\*\*|\*|\?)", pattern))
