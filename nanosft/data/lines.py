"""An object's bytes as lines: decompressed, checked against the manifest, read ahead; Parquet's rows as JSON lines."""

import hashlib
import io
import zlib
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import orjson
import zstandard

from nanosft.data.hashing import hash_object
from nanosft.data.objects import DataObject
from nanosft.errors import DataError, StoreError

_BLOCK_BYTES: Final = 1 << 18
_NUM_BLOCKS_AHEAD: Final = 4
_PARQUET_ROWS: Final = 512
MAX_LINE_BYTES: Final = 1 << 26
"""Of one conversation, decompressed: a thousand times what a long one has. Memory is bounded by it, whatever comes."""
_ZSTD_BYTES: Final = 1 << 12
"""Compressed bytes at a time: a block of 4 bytes may stand for 128 KiB, so these for 128 MiB at the worst."""
_ZSTD_WINDOW_BYTES: Final = 1 << 27
"""As far as `zstd --long` reaches back by default."""
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
BLANK: Final = b" \t\r\n"
_CHANGED: Final = "it was changed, or is not what its manifest says: make it again"


def iter_lines(item: DataObject) -> Iterator[tuple[int, bytes]]:
    """Numbers (from 1) and lines without their ends, decompressed; blank ones are skipped, and are no rows.

    Parquet's rows come as lines of JSON. `item.place(number)` is what messages call one.

    Raises:
        DataError: At the end, when the object's bytes or its number of rows are not those of its manifest.
    """
    num_rows = 0
    for number, line in _number_lines(item):
        if text := line.strip(BLANK):
            num_rows += 1
            yield number, text
    if item.num_rows is not None and num_rows != item.num_rows:
        raise DataError(f"{item.uri}: has {num_rows} rows, its manifest says {item.num_rows}: make it again")


def _number_lines(item: DataObject) -> Iterator[tuple[int, bytes]]:
    if item.unit == "row":
        return enumerate((line for lines in read_parquet(item) for line in lines), 1)
    blocks = read_blocks(item)
    return _split_lines(read_ahead(blocks) if item.size_bytes > _BLOCK_BYTES else blocks, item)


def read_blocks(item: DataObject, digest: "hashlib._Hash | None" = None) -> Generator[bytes, None, None]:
    """The object's bytes, decompressed, in blocks; its SHA-256 checked at the end.

    Args:
        item: The object.
        digest: Updated with the bytes as they are stored, for callers that name the object in their lineage.
    """
    if digest is None and item.sha256 is not None:
        digest = hashlib.sha256()
    num_bytes = 0
    with item.open() as stream:

        def read() -> Iterator[bytes]:
            nonlocal num_bytes
            while block := stream.read(_BLOCK_BYTES):
                num_bytes += len(block)
                if digest is not None:
                    digest.update(block)
                yield block

        yield from _decompress(read(), item)
    if num_bytes != item.size_bytes:
        raise DataError(f"{item.uri}: has {num_bytes} bytes, {item.size_bytes} are expected: {_CHANGED}")
    if digest is not None:
        _check_sha256(item, digest.hexdigest())


def _check_sha256(item: DataObject, sha256: str) -> None:
    if item.sha256 is not None and sha256 != item.sha256:
        if hash_object(item) == item.sha256:
            raise StoreError(f"{item.uri}: was damaged on its way here: run the same command again")
        raise DataError(f"{item.uri}: SHA-256 is {sha256}, {item.sha256} is expected: {_CHANGED}")


def _decompress(blocks: Iterator[bytes], item: DataObject) -> Iterator[bytes]:
    """Blocks of a `.gz` or `.zst` object decompressed, members and frames one after the other; others as they are.

    No block is longer than 256 KiB, however far a few bytes expand.
    """
    if item.key.endswith(".gz"):
        expand = _expand_gzip(blocks)
    elif item.key.endswith(".zst"):
        expand = _expand_zstd(blocks)
    else:
        yield from blocks
        return
    try:
        for text in expand:
            for start in range(0, len(text), _BLOCK_BYTES):
                yield text[start : start + _BLOCK_BYTES]
    except (zlib.error, zstandard.ZstdError) as exc:
        raise DataError(f"{item.uri}: cannot be decompressed: {exc}") from exc
    except EOFError:
        raise DataError(f"{item.uri}: cannot be decompressed: it ends early") from None


def _expand_gzip(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """What gzip's members hold; raises EOFError where the last one does not end, or where there is none."""
    member = None
    is_empty = True
    for block in blocks:
        is_empty = False
        rest = block
        while rest:
            member = member or zlib.decompressobj(wbits=31)  # 31: gzip's header and check sum
            yield member.decompress(rest, _BLOCK_BYTES)
            rest = member.unconsumed_tail
            if member.eof:
                rest = member.unused_data
                member = None
    while member is not None and not member.eof:
        text = member.decompress(b"", _BLOCK_BYTES)
        if not text:
            raise EOFError
        yield text
    if is_empty:
        raise EOFError


def _expand_zstd(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """What zstd's frames hold; raises EOFError where the last one does not end, or where there is none."""
    make = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj
    member = None
    is_empty = True
    for block in blocks:
        is_empty = False
        for start in range(0, len(block), _ZSTD_BYTES):
            rest = block[start : start + _ZSTD_BYTES]
            while rest:
                member = member or make()
                yield member.decompress(rest)
                rest = member.unused_data
                if member.eof:
                    member = None
    if is_empty or member is not None:
        raise EOFError


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


def _split_lines(blocks: Iterator[bytes], item: DataObject) -> Iterator[tuple[int, bytes]]:
    """Line numbers and lines, without a byte order mark; a line may span any number of blocks.

    Lines of a block that is all blank are only counted: 40 KB of `.zst` hold 10^8 of them.
    """
    number = 0
    pieces: list[bytes] = []
    size = 0
    for block in blocks:
        if b"\n" not in block:
            pieces.append(block)
            size += len(block)
            check_line_size(size, item.place(number + 1))
            continue
        if not pieces and not block.strip(BLANK):
            number += block.count(b"\n")
            continue
        lines = b"".join((*pieces, block)).split(b"\n")
        last = lines.pop()
        pieces, size = [last] if last else [], len(last)
        for line in lines:
            number += 1
            yield number, line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
    if last := b"".join(pieces):
        yield number + 1, last.removeprefix(_BYTE_ORDER_MARK) if number == 0 else last


def check_line_size(size_bytes: int, where: str) -> None:
    """Refuse a line that is longer than any conversation, before all of it is in memory.

    Raises:
        DataError: It has more than `MAX_LINE_BYTES`.
    """
    if size_bytes > MAX_LINE_BYTES:
        raise DataError(f"{where}: is longer than {MAX_LINE_BYTES >> 20} MiB: one conversation a line is expected")


def read_parquet(item: DataObject) -> Iterator[list[bytes]]:
    """The rows of a Parquet object as lines of JSON without their ends, some hundred at a time.

    Raises:
        DataError: It is no Parquet file, holds what JSON cannot, or is at its end not what is expected.
    """
    import pyarrow as pa  # noqa: PLC0415 - 0.1 s that JSONL need not pay
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(_RangeFile(item), pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                yield [orjson.dumps(row, default=repr) for row in batch.to_pylist()]
        if item.sha256 is not None:
            _check_sha256(item, hash_object(item))
    except (pa.ArrowException, orjson.JSONEncodeError, OSError, ValueError, OverflowError) as exc:
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
        length = left if size is None or size < 0 else min(size, left)
        data = self._item.store.read_range(self._item.key, self._place, length, etag=self._item.etag)
        self._place += len(data)
        return data
