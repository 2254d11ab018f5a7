"""Conversations in and out of the store: what a URI of data means, reading it, writing shards of it.

    for conversation in read_conversations("s3://bucket/mix"):
        ...

A URI means: a file, itself; a prefix with `manifest.json`, exactly its objects; a prefix without one but with
`shards/`, `rows/` or `state/`, a run not finished (DataError); any other prefix, its own `*.jsonl`, `*.jsonl.gz`
and `*.jsonl.zst`, not those below it.
"""

import hashlib
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import zstandard

from nanosft.conversation import Conversation, Format, parse_line, role_problem, to_line
from nanosft.errors import DataError
from nanosft.manifest import MANIFEST_KEY, Kind, Manifest, ManifestObject, parse_manifest
from nanosft.store import MissingObjectError, Store, Writer, open_object, open_store

DATA_SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_DATA_KINDS: Final[frozenset[Kind]] = frozenset({"generated", "generated-shard", "mixture", "audited"})
UNFINISHED_NAMES: Final = frozenset({"rows", "shards", "state"})
"""Prefixes that only a run under way has beside it, as long as there is no manifest."""
_BLOCK_BYTES: Final = 1 << 18
_NUM_BLOCKS_AHEAD: Final = 4
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class DataObject:
    """One object of conversations, and what a manifest says of it (None where no manifest does)."""

    store: Store
    key: str
    size_bytes: int
    sha256: str | None = None
    num_rows: int | None = None

    @property
    def uri(self) -> str:
        """Its URI, for messages and lineage."""
        return self.store.uri_of(self.key)


def read_conversations(uri: str, *, format: Format = "auto") -> Iterator[Conversation]:  # noqa: A002 - the field's word
    """Every conversation that a URI of data means, in the order of objects and lines, streamed.

    Args:
        uri: A file, or a prefix; see the module's docstring.
        format: The format each line must have; "auto" tells it line by line.

    Raises:
        DataError: Nothing is there, a run is unfinished, a line is no conversation that can be trained on (named
            `uri:line N`), or an object is not what its manifest says, which only its end can tell.
    """
    for item in list_data_objects(uri):
        yield from read_object(item, format=format)


def read_object(item: DataObject, *, format: Format = "auto") -> Iterator[Conversation]:  # noqa: A002
    """Every conversation of one object, streamed; raises as `read_conversations` does."""
    uri = item.uri
    for number, line in iter_lines(item):
        yield parse_trainable(line, where=f"{uri}:line {number}", format=format)


def parse_trainable(line: bytes, *, where: str, format: Format = "auto") -> Conversation:  # noqa: A002
    """`parse_line` of a conversation that can be trained on; raises DataError for any other."""
    conversation = parse_line(line, where=where, format=format)
    if problem := role_problem(conversation.messages):
        raise DataError(f"{where}: the conversation {problem}")
    return conversation


def list_data_objects(uri: str) -> list[DataObject]:
    """The objects that a URI of data means, in reading order.

    Raises:
        DataError: Nothing is there, or what is there is unfinished or holds no conversations.
    """
    maybe_file = not uri.endswith("/")
    if maybe_file and uri.endswith(DATA_SUFFIXES) and (item := _find_file(uri)):
        return [item]
    store = open_store(uri)
    manifest = read_manifest(store)
    if manifest is not None:
        return _list_manifest(store, manifest)
    directory = store.list_directory()
    if unfinished := sorted(UNFINISHED_NAMES.intersection(directory.names)):
        raise DataError(
            f"{store.uri}: unfinished: it has {unfinished[0]}/ but no {MANIFEST_KEY}: "
            "run the command that makes it again, it goes on where it stopped"
        )
    items = [DataObject(store, info.key, info.size_bytes) for info in directory.objects if _is_data(info.key)]
    if items:
        return items
    is_there = directory.objects or directory.names
    if maybe_file and not is_there and (item := _find_file(uri)):
        return [item]
    there = "holds no conversations" if is_there else "nothing is there"
    raise DataError(f"{store.uri}: {there}: expected a file, a {MANIFEST_KEY}, or {', '.join(DATA_SUFFIXES)} objects")


def read_manifest(store: Store) -> Manifest | None:
    """The manifest at the store's root, or None when there is none.

    Raises:
        DataError: It cannot be read.
    """
    try:
        data = store.read(MANIFEST_KEY)
    except MissingObjectError:
        return None
    return parse_manifest(data, where=store.uri_of(MANIFEST_KEY))


def put_manifest(store: Store, manifest: Manifest) -> None:
    """Put the manifest at the store's root: last of all, when what it names is up."""
    store.write(MANIFEST_KEY, manifest.to_bytes())


def iter_lines(item: DataObject) -> Iterator[tuple[int, bytes]]:
    """Line numbers (from 1) and lines without their ends, decompressed; blank ones are skipped, and are no rows.

    Raises:
        DataError: At the end, when the object's bytes or its number of rows are not those of its manifest.
    """
    blocks = read_blocks(item)
    num_rows = 0
    for number, line in _split_lines(read_ahead(blocks) if item.size_bytes > _BLOCK_BYTES else blocks):
        if text := line.strip(b" \t\r"):
            num_rows += 1
            yield number, text
    if item.num_rows is not None and num_rows != item.num_rows:
        raise DataError(f"{item.uri}: has {num_rows} rows, its manifest says {item.num_rows}: make it again")


class ShardWriter:
    """Writes conversations as lines of one object, counting as it goes. Leaving on an exception puts nothing.

    Args:
        store: Where to.
        key: The object's key, as the manifest will name it.
        encode: A conversation as a line with its end: `to_line` (canonical) or `to_list_line` (nanochat's).
    """

    def __init__(self, store: Store, key: str, *, encode: Callable[[Conversation], bytes] = to_line) -> None:
        self._key, self._encode = key, encode
        self._context = store.open_write(key)
        self._num_rows = 0
        self._writer: Writer | None = None

    def __enter__(self) -> Self:
        self._writer = self._context.__enter__()
        return self

    def write(self, conversation: Conversation) -> None:
        """Append one conversation."""
        self.write_line(self._encode(conversation))

    def write_line(self, line: bytes) -> None:
        r"""Append one line that is encoded already, `\n` included."""
        assert self._writer is not None, "enter the context first"
        self._writer.write(line)
        self._num_rows += 1

    @property
    def num_rows(self) -> int:
        """Lines written so far."""
        return self._num_rows

    @property
    def object(self) -> ManifestObject:
        """What was put; only after a normal exit of the context."""
        assert self._writer is not None, "enter the context first"
        written = self._writer.written
        return ManifestObject(
            key=self._key, size_bytes=written.size_bytes, sha256=written.sha256, num_rows=self._num_rows
        )

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._context.__exit__(kind, value, at)


def _is_data(key: str) -> bool:
    return key.endswith(DATA_SUFFIXES)


def _find_file(uri: str) -> DataObject | None:
    store, key = open_object(uri)
    info = store.stat(key)
    return None if info is None else DataObject(store, key, info.size_bytes)


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
