"""Rows from the spill files into the output's objects, in order.

A mixture that the system can keep in its page cache is written by reading each row where it was spilled. A larger one
is first dealt out: every copy of a row is appended to the file of its segment, a stretch of the output that fits into
memory, so that the disk is read and written from end to end, and each segment is put in order when it is written.
"""

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import zstandard

from nanosft.errors import StoreError
from nanosft.manifest import ManifestObject
from nanosft.mix.columns import Columns
from nanosft.mix.disk.spill import Places, open_spilled, read_at, spill_path
from nanosft.store import Writer, open_store

Compression = Literal["none", "gz", "zst"]
Array = npt.NDArray[Any]

PART_NAMES: Final = ("train", "val")
_SUFFIXES: Final[dict[Compression, str]] = {"none": "", "gz": ".gz", "zst": ".zst"}
_CHUNK_BYTES: Final = 1 << 20
_ROWS_AT_ONCE: Final = 512
_PLACE: Final = np.dtype([("position", "<u8"), ("size", "<u4")])


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how objects are put.

    Attributes:
        uri: The output's prefix.
        compression: How its objects are compressed.
        spill: Directory of the spill and segment files.
    """

    uri: str
    compression: Compression
    spill: Path


def object_key(part: int, index: int, compression: Compression) -> str:
    """Key of the `index`-th object of a part: `train-00000.jsonl`."""
    return f"{PART_NAMES[part]}-{index:05d}.jsonl{_SUFFIXES[compression]}"


def plan_direct(chunks: Iterable[Columns], shard_rows: int) -> Iterator[tuple[int, int, Array, Array, Array]]:
    """Rows in the order of the output, cut into objects: part, index, and each row's batch, start and size."""
    waiting: list[list[Array]] = []
    part, index, num = 0, 0, 0
    for chunk in chunks:
        columns = [chunk[name] for name in ("part", "batch", "start", "size")]
        begin = 0
        while begin < len(columns[0]):
            if columns[0][begin] != part:
                if waiting:
                    yield (part, index, *_join(waiting))
                part, index, num, waiting = int(columns[0][begin]), 0, 0, []
            same = int(np.searchsorted(columns[0], part, side="right"))
            end = min(begin + shard_rows - num, same)
            waiting.append([column[begin:end] for column in columns[1:]])
            num += end - begin
            begin = end
            if num == shard_rows:
                yield (part, index, *_join(waiting))
                index, num, waiting = index + 1, 0, []
    if waiting:
        yield (part, index, *_join(waiting))


def write_direct(target: Target, part: int, index: int, batches: Array, starts: Array, sizes: Array) -> ManifestObject:
    """Write one object, each row read where it was spilled."""
    places = Places.load(target.spill)
    with ExitStack() as stack:
        processes = places.process[batches]
        files = {
            process: stack.enter_context(open_spilled(spill_path(target.spill, "rows", process)))
            for process in np.unique(processes).tolist()
        }

        def read() -> Iterator[bytes]:
            for first in range(0, len(batches), _ROWS_AT_ONCE):
                span = slice(first, first + _ROWS_AT_ONCE)
                offsets = places.rows_at[batches[span]] + starts[span]
                rows = zip(processes[span].tolist(), sizes[span].tolist(), offsets.tolist(), strict=True)
                yield b"".join([read_at(files[process], size, offset) for process, size, offset in rows])

        return _write(target, object_key(part, index, target.compression), len(batches), read())


class SegmentWriter:
    """Deals rows out to the segments of the output.

    Args:
        target: Where the rows are and the segments go.
        shard_rows: Rows of one object; a segment never crosses objects.
        segment_rows: Rows of one segment.
        buffer_bytes: What may wait in memory.
    """

    def __init__(self, target: Target, *, shard_rows: int, segment_rows: int, buffer_bytes: int) -> None:
        self._target = target
        self._shard_rows = shard_rows
        self._segment_rows = min(segment_rows, shard_rows)
        self._per_object = -(-shard_rows // self._segment_rows)
        self._buffer_bytes = buffer_bytes
        self._rows: dict[tuple[int, int], list[bytes]] = defaultdict(list)
        self._places: dict[tuple[int, int], list[Array]] = defaultdict(list)
        self._num_bytes = 0
        self._segments: set[tuple[int, int]] = set()

    def write(self, chunks: Iterable[Columns]) -> list[tuple[int, int, list[Path]]]:
        """Append every row to the file of its segment.

        Args:
            chunks: Rows in the order of the spill files, with their position in their part.

        Returns:
            Each object's part, its index, and its segments' files in order.
        """
        places = Places.load(self._target.spill)
        paths = {process: spill_path(self._target.spill, "rows", process) for process in set(places.process.tolist())}
        with ExitStack() as stack:
            files = {process: stack.enter_context(open_spilled(path)) for process, path in paths.items()}
            for chunk in chunks:
                part, batch, start, size, position = (
                    chunk[name] for name in ("part", "batch", "start", "size", "position")
                )
                edges = np.flatnonzero(np.concatenate([[True], batch[1:] != batch[:-1]])).tolist()
                for begin, end in zip(edges, [*edges[1:], len(batch)], strict=True):
                    span, number = slice(begin, end), batch[begin]
                    first, last = int(start[begin]), int(start[end - 1]) + int(size[end - 1])
                    data = read_at(files[places.process[number]], last - first, places.rows_at[number] + first)
                    self._write_batch(data, part[span], start[span] - first, size[span], position[span])
        for path in paths.values():
            path.unlink()
        self._flush()
        objects: dict[tuple[int, int], list[Path]] = defaultdict(list)
        for part_number, segment in sorted(self._segments):
            objects[part_number, segment // self._per_object].append(self._path(part_number, segment))
        return [(part_number, index, paths) for (part_number, index), paths in sorted(objects.items())]

    def _write_batch(self, data: bytes, part: Array, start: Array, size: Array, position: Array) -> None:
        within = position % self._shard_rows // self._segment_rows
        segment = position // self._shard_rows * self._per_object + within
        order = np.lexsort((segment, part))
        part, segment, start, size, position = (a[order] for a in (part, segment, start, size, position))
        edges = np.flatnonzero(np.concatenate([[True], (segment[1:] != segment[:-1]) | (part[1:] != part[:-1])]))
        places = np.empty(len(part), _PLACE)
        places["position"], places["size"] = position, size
        starts, ends = start.tolist(), (start + size).tolist()
        for begin, end in zip(edges.tolist(), [*edges.tolist()[1:], len(part)], strict=True):
            key = (int(part[begin]), int(segment[begin]))
            self._rows[key].extend([data[starts[i] : ends[i]] for i in range(begin, end)])
            self._places[key].append(places[begin:end])
        self._num_bytes += int(size.sum())
        if self._num_bytes >= self._buffer_bytes:
            self._flush()

    def _flush(self) -> None:
        for key, rows in self._rows.items():
            path = self._path(*key)
            with path.open("ab") as file:
                file.write(b"".join(rows))
            with path.with_suffix(".places").open("ab") as file:
                file.write(np.concatenate(self._places[key]).tobytes())
            self._segments.add(key)
        self._rows.clear()
        self._places.clear()
        self._num_bytes = 0

    def _path(self, part: int, segment: int) -> Path:
        return self._target.spill / f"segment-{part}-{segment:08d}"


def write_segments(target: Target, part: int, index: int, paths: list[Path]) -> ManifestObject:
    """Write one object from its segments, which are deleted."""
    num_rows = sum(path.with_suffix(".places").stat().st_size for path in paths) // _PLACE.itemsize

    def read() -> Iterator[bytes]:
        for path in paths:
            places = np.fromfile(path.with_suffix(".places"), _PLACE)
            data = path.read_bytes()
            ends = np.cumsum(places["size"], dtype=np.int64)
            starts = (ends - places["size"]).tolist()
            stops = ends.tolist()
            if len(data) != stops[-1]:
                raise StoreError(f"{path}: the work directory lost data: run again, with another --work-dir")
            order = np.argsort(places["position"]).tolist()
            for first in range(0, len(order), _ROWS_AT_ONCE):
                yield b"".join([data[starts[row] : stops[row]] for row in order[first : first + _ROWS_AT_ONCE]])
            path.unlink()
            path.with_suffix(".places").unlink()

    return _write(target, object_key(part, index, target.compression), num_rows, read())


def _write(target: Target, key: str, num_rows: int, chunks: Iterable[bytes]) -> ManifestObject:
    store = open_store(target.uri)
    with store.open_write(key) as writer:
        _compress(chunks, target.compression, writer)
    written = writer.written
    return ManifestObject(key=key, size_bytes=written.size_bytes, sha256=written.sha256, num_rows=num_rows)


def _compress(chunks: Iterable[bytes], compression: Compression, writer: Writer) -> None:
    if compression == "none":
        for chunk in chunks:
            writer.write(chunk)
        return
    make: dict[str, Callable[[], Any]] = {
        "gz": lambda: zlib.compressobj(wbits=31),  # 31: gzip's header, without a time
        "zst": lambda: zstandard.ZstdCompressor(write_checksum=True).compressobj(),
    }
    compressor = make[compression]()
    for chunk in _even(chunks):
        if data := compressor.compress(chunk):
            writer.write(data)
    writer.write(compressor.flush())


def _even(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of one size, so that what a compressor makes does not depend on how they came."""
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= _CHUNK_BYTES:
            yield bytes(buffer[:_CHUNK_BYTES])
            del buffer[:_CHUNK_BYTES]
    yield bytes(buffer)


def _join(pieces: list[list[Array]]) -> tuple[Array, Array, Array]:
    batches, starts, sizes = (np.concatenate(columns) for columns in zip(*pieces, strict=True))
    return batches, starts, sizes
