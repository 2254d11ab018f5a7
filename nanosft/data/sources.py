"""Where rows come from: a recipe's URIs as objects, and objects as batches of whole lines, streamed.

Objects are read in order of their URI, so the order of a listing or of a recipe's list of URIs changes nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from nanosft.data.hashing import hash_into
from nanosft.data.lines import BLANK, check_line_size, read_ahead, read_blocks, read_parquet
from nanosft.data.objects import DataObject, list_data_objects
from nanosft.data.origins import Origin
from nanosft.data.prefix import read_manifest
from nanosft.manifest import Parent

if TYPE_CHECKING:
    import hashlib

BATCH_BYTES: Final = 1 << 20
"""Least bytes of lines that one worker gets at a time: enough to make NumPy's calls cheap, small beside any limit."""
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole lines of one object.

    Attributes:
        source: The source's place in the recipe.
        uri: The object's URI.
        first: Number of the first line, from 1.
        unit: What errors call a line: Parquet has rows.
        pieces: The lines, cut anywhere; the last may lack its end. None where they are in a file.
        path: The file.
        size_bytes: Size of all lines.
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
        data = self.take()
        if not data.strip(BLANK):  # of newlines alone 40 KB of `.zst` hold 10^8
            return
        for number, raw in enumerate(data.split(b"\n"), self.first):
            if line := raw.strip(BLANK):
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
        manifests: The manifests of the prefixes that have one; objects without are named by their own hash.
        bare: URIs of the objects that no manifest names.
    """

    objects: tuple[DataObject, ...]
    manifests: tuple[Parent, ...]
    bare: frozenset[str]

    def find_origins(self) -> list[Origin]:
        """What a set made from them is made from."""
        named = [Origin.known(parent.uri, parent.sha256) for parent in self.manifests]
        return named + [Origin.of_objects(item.uri, [item]) for item in self.objects if item.uri in self.bare]


def find_inputs(uris: Iterable[str]) -> Inputs:
    """List what URIs mean (see `objects`), each object once.

    Raises:
        DataError: One of them means nothing, or a run that is unfinished.
    """
    found: dict[str, DataObject] = {}
    manifests: dict[str, Parent] = {}
    bare: set[str] = set()
    for uri in uris:
        items = list_data_objects(uri)
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
    if item.unit == "row":
        if digest is not None:
            hash_into(digest, item)
        first = 1
        for lines in read_parquet(item):
            yield Batch(source, item.uri, first, "row", (b"\n".join(lines),))
            first += len(lines)
        return
    first, pieces, size = 1, list[bytes](), 0
    for block in _without_mark(read_ahead(read_blocks(item, digest))):
        size += len(block)
        check_line_size(size - BATCH_BYTES, f"{item.uri}:line {first} and on")
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
