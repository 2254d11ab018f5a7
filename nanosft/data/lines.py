"""An object's bytes as lines: decompressed, checked against the manifest, read ahead; Parquet's rows as JSON lines."""

import hashlib
import io
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import orjson
import zstandard

from nanosft.data.objects import DataObject
from nanosft.errors import DataError

_BLOCK_BYTES: Final = 1 << 18
_NUM_BLOCKS_AHEAD: Final = 4
_PARQUET_ROWS: Final = 512
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def iter_lines(item: DataObject) -> Iterator[tuple[int, bytes]]:
    """Numbers (from 1) and lines without their ends, decompressed; blank ones are skipped, and are no rows.

    Parquet's rows come as lines of JSON. `item.place(number)` is what messages call one.

    Raises:
        DataError: At the end, when the object's bytes or its number of rows are not those of its manifest.
    """
    num_rows = 0
    for number, line in _number_lines(item):
        if text := line.strip(b" \t\r"):
            num_rows += 1
            yield number, text
    if item.num_rows is not None and num_rows != item.num_rows:
        raise DataError(f"{item.uri}: has {num_rows} rows, its manifest says {item.num_rows}: make it again")


def _number_lines(item: DataObject) -> Iterator[tuple[int, bytes]]:
    if item.unit == "row":
        return enumerate((line for lines in read_parquet(item) for line in lines), 1)
    blocks = read_blocks(item)
    return _split_lines(read_ahead(blocks) if item.size_bytes > _BLOCK_BYTES else blocks)


def read_blocks(item: DataObject, digest: "hashlib._Hash | None" = None) -> Generator[bytes, None, None]:
    """The object's bytes, decompressed, in blocks; its SHA-256 checked at the end.

    Args:
        item: The object.
        digest: Updated with the bytes as they are stored, for callers that name the object in their lineage.
    """
    if digest is None and item.sha256 is not None:
        digest = hashlib.sha256()
    with item.store.open_read(item.key) as stream:

        def read() -> Iterator[bytes]:
            while block := stream.read(_BLOCK_BYTES):
                if digest is not None:
                    digest.update(block)
                yield block

        yield from _decompress(read(), item)
    if digest is not None and item.sha256 is not None and digest.hexdigest() != item.sha256:
        raise DataError(f"{item.uri}: SHA-256 is {digest.hexdigest()}, its manifest says {item.sha256}: make it again")


def _decompress(blocks: Iterator[bytes], item: DataObject) -> Iterator[bytes]:
    """Blocks of a `.gz` or `.zst` object decompressed, members and frames one after the other; others as they are."""
    make: Callable[[], Any]
    if item.key.endswith(".gz"):
        make = lambda: zlib.decompressobj(wbits=31)  # noqa: E731 - 31: gzip's header and check sum
    elif item.key.endswith(".zst"):
        make = lambda: zstandard.ZstdDecompressor().decompressobj()  # noqa: E731 - the other of the two
    else:
        yield from blocks
        return
    member = None
    for block in blocks:
        rest = block
        while rest:
            member = member or make()
            try:
                text = member.decompress(rest)
            except (zlib.error, zstandard.ZstdError) as exc:
                raise DataError(f"{item.uri}: cannot be decompressed: {exc}") from exc
            rest = member.unused_data
            if member.eof:
                member = None
            if text:
                yield text
    if member is not None:
        raise DataError(f"{item.uri}: cannot be decompressed: it ends early")


def read_ahead(blocks: Generator[bytes, None, None]) -> Iterator[bytes]:
    """The same blocks, read, hashed and decompressed by a thread while the caller works on earlier ones."""
    with ThreadPoolExecutor(1, thread_name_prefix="nanosft-read") as thread:
        waiting = deque(thread.submit(next, blocks, None) for _ in range(_NUM_BLOCKS_AHEAD))
        try:
            while (block := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(next, blocks, None))
                yield block
        finally:
            thread.shutdown(cancel_futures=True)
            blocks.close()


def _split_lines(blocks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Line numbers and lines, without a byte order mark; a line may span any number of blocks."""
    number = 0
    pieces: list[bytes] = []
    for block in blocks:
        if b"\n" not in block:
            pieces.append(block)
            continue
        lines = b"".join((*pieces, block)).split(b"\n")
        pieces = [lines.pop()]
        for line in lines:
            number += 1
            yield number, line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
    if last := b"".join(pieces):
        yield number + 1, last.removeprefix(_BYTE_ORDER_MARK) if number == 0 else last


def read_parquet(item: DataObject) -> Iterator[list[bytes]]:
    """The rows of a Parquet object as lines of JSON without their ends, some hundred at a time.

    Raises:
        DataError: It is no Parquet file, or holds what JSON cannot.
    """
    import pyarrow as pa  # noqa: PLC0415 - 0.1 s that JSONL need not pay
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(_RangeFile(item), pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                yield [orjson.dumps(row, default=repr) for row in batch.to_pylist()]
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
