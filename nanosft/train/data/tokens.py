"""All conversations of a data set as tokens: rendered in parallel, shortened where a row is too short, cached.

Torch-free, so that the processes that tokenise start fast.
"""

import hashlib
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import orjson

from nanosft.data import DataObject, iter_lines, parse_trainable, sha256_of
from nanosft.errors import DataError
from nanosft.nanochat.tokenizer import Tokenizer, parse_tokenizer
from nanosft.packing import fit_turns
from nanosft.parallel import Workers
from nanosft.store.base import Store

Overlong = Literal["turns", "drop", "error"]
Line = tuple[str, bytes]
"""Where a line stands (`uri:line N`), and the line."""

DEFAULT_SOURCE: Final = "data"
"""The source of conversations that name none."""

_CHUNK_LINES: Final = 256
_CHUNK_BYTES: Final = 4 << 20
_SERIAL_LINES: Final = 2048
_SERIAL_BYTES: Final = 16 << 20
"""Data sets up to so many lines and bytes are tokenised in this process: starting others takes longer."""
_CACHE_FORMAT: Final = 1
_MAGIC: Final = b"nanosft tokens\n"
_ALIGNMENT: Final = 64


@dataclass(frozen=True)
class TokenSet:
    """Conversations as tokens, one after the other.

    Attributes:
        ids: (num_tokens,) uint16 or uint32.
        mask: (num_tokens,) uint8, 1 where a token is supervised.
        offsets: (num_conversations + 1,) int64; conversation i is `ids[offsets[i]:offsets[i + 1]]`.
        sources: (num_conversations,) int64 index into `source_names`.
        supervised: (num_conversations,) int64 number of supervised tokens.
        names: (num_conversations, 8) uint8: the first bytes of the content ids.
        source_names: Names of the sources, sorted.
        counts: What was read, shortened and dropped.
    """

    ids: npt.NDArray[np.unsignedinteger[Any]]
    mask: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    sources: npt.NDArray[np.int64]
    supervised: npt.NDArray[np.int64]
    names: npt.NDArray[np.uint8]
    source_names: tuple[str, ...]
    counts: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of conversations."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(num_conversations,) tokens of each."""
        return np.diff(self.offsets)

    def conversation(self, index: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Ids (n,) int64 and mask (n,) of one conversation."""
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.ids[start:end].astype(np.int64), self.mask[start:end]

    def name_of(self, index: int) -> str:
        """The first 16 hex digits of a conversation's content id."""
        return bytes(self.names[index]).hex()


def tokenize(
    lines: Iterable[Line],
    tokenizer_pickle: bytes,
    *,
    capacity: int,
    overlong: Overlong,
    num_workers: int,
    on_progress: Callable[[int], None] = lambda _num: None,
) -> TokenSet:
    """Render all conversations, in their order, whatever the number of processes.

    Args:
        lines: Lines of conversations of any accepted format.
        tokenizer_pickle: nanochat's tokenizer.pkl.
        capacity: Tokens of a row; longer conversations are overlong.
        overlong: "turns": keep the leading turns that fit, dropping a conversation whose first does not; "drop"; or
            "error".
        num_workers: Processes to share the work.
        on_progress: Called with the number of lines just done.

    Raises:
        DataError: A line is no conversation, or one is overlong and `overlong` is "error".
        StoreError: A process that shares the work died, most likely of too little memory.
    """
    chunks = _cut(iter(lines))
    head, num_bytes, is_small = list[list[Line]](), 0, True
    for chunk in chunks:
        head.append(chunk)
        num_bytes += sum(len(line) for _, line in chunk)
        if len(head) == _SERIAL_LINES // _CHUNK_LINES or num_bytes >= _SERIAL_BYTES:
            is_small = False
            break
    results: list[_Rendered] = []
    with Workers(1 if is_small else num_workers, _set_up, tokenizer_pickle, capacity, overlong) as workers:
        for result in workers.map(_render, ((chunk,) for chunk in chain(head, chunks))):
            results.append(result)
            on_progress(result.num_lines)
    return _join(results)


def read_lines(objects: Sequence[DataObject]) -> Iterator[Line]:
    """All lines of the objects, each with where it stands."""
    for item in objects:
        for number, line in iter_lines(item):
            yield item.place(number), line


def hash_objects(objects: Sequence[DataObject]) -> str:
    """SHA-256 of one object's content; of several, of the list of their hashes."""
    digests = [sha256_of(item) for item in objects]
    if len(digests) == 1:
        return digests[0]
    lines = [f"{item.key} {digest}\n" for item, digest in zip(objects, digests, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def cache_key(data_sha256: str, tokenizer_pickle: bytes, *, capacity: int, overlong: Overlong) -> str:
    """The key, in the store of the run, of the tokens that these arguments decide."""
    parts = {
        "format": _CACHE_FORMAT,
        "data": data_sha256,
        "tokenizer": hashlib.sha256(tokenizer_pickle).hexdigest(),
        "capacity": capacity,
        "overlong": overlong,
    }
    digest = hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return f"plan/{digest[:32]}.tokens"


def write_tokens(store: Store, key: str, tokens: TokenSet) -> None:
    """Put the tokens as one object: a line of JSON, then the arrays as they lie in memory."""
    arrays = _arrays(tokens)
    table, start = {}, 0
    for name, array in arrays.items():
        table[name] = {"dtype": str(array.dtype), "shape": array.shape, "start": start}
        start += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    header = orjson.dumps({"arrays": table, "source_names": tokens.source_names, "counts": dict(tokens.counts)})
    header = _MAGIC + header.ljust(-(-(len(header) + len(_MAGIC) + 1) // _ALIGNMENT) * _ALIGNMENT - len(_MAGIC) - 1)
    with store.open_write(key) as writer:
        writer.write(header + b"\n")
        for array in arrays.values():
            writer.write(np.ascontiguousarray(array).view(np.uint8).data)
            writer.write(bytes(-array.nbytes % _ALIGNMENT))


def read_tokens(store: Store, key: str) -> TokenSet:
    """The tokens that `write_tokens` put, mapped from a file without a name: ranks do not hold them in memory.

    Raises:
        DataError: It is no such object.
    """
    where = store.uri_of(key)
    with store.open_read(key) as stream, tempfile.TemporaryFile() as file:
        magic = stream.readline()
        header_line = stream.readline() if magic == _MAGIC else b""
        while block := stream.read(1 << 22):
            file.write(block)
        file.flush()
        try:
            header = orjson.loads(header_line)
            arrays = {name: _map(file, where, **item) for name, item in header["arrays"].items()}
            return TokenSet(**arrays, source_names=tuple(header["source_names"]), counts=dict(header["counts"]))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as exc:
            raise DataError(f"{where}: not the tokens of a plan: delete it, the next run makes it again") from exc


def _map(file: IO[bytes], where: str, *, dtype: str, shape: Sequence[int], start: int) -> npt.NDArray[Any]:
    """One array of the file; only whole numbers are mapped, as Python's objects would be addresses in memory."""
    kind = np.dtype(dtype)
    if kind.kind not in "iu" or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"{dtype} of {shape}")
    if start + kind.itemsize * math.prod(shape) > os.fstat(file.fileno()).st_size:
        raise DataError(f"{where}: ends early: delete it, the next run makes it again")
    if 0 in shape:
        return np.zeros(tuple(shape), kind)
    return np.memmap(file, kind, "r", offset=start, shape=tuple(shape))


@dataclass(frozen=True, slots=True)
class _Rendered:
    """What a chunk of lines became."""

    num_lines: int
    ids: npt.NDArray[np.unsignedinteger[Any]]
    mask: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int64]
    sources: tuple[str, ...]
    names: bytes
    counts: Counter[str]


class _Renderer:
    def __init__(self, tokenizer: Tokenizer, capacity: int, overlong: Overlong) -> None:
        self._tokenizer = tokenizer
        self._capacity = capacity
        self._overlong = overlong
        self._dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32

    def render(self, lines: Sequence[Line]) -> _Rendered:
        counts: Counter[str] = Counter(num_conversations=len(lines))
        all_ids: list[int] = []
        all_mask: list[int] = []
        lengths: list[int] = []
        sources: list[str] = []
        names = bytearray()
        for where, line in lines:
            conversation = parse_trainable(line, where=where)
            ids, mask = self._tokenizer.render(conversation)
            length = len(ids)
            if length > self._capacity:
                length = self._shorten(ids, where, counts)
            if not length:
                continue
            all_ids += ids[:length]
            all_mask += mask[:length]
            lengths.append(length)
            sources.append(str(conversation.meta.get("source") or DEFAULT_SOURCE))
            names += bytes.fromhex(conversation.id[:16])
        return _Rendered(
            len(lines),
            np.array(all_ids, self._dtype),
            np.array(all_mask, np.uint8),
            np.array(lengths, np.int64),
            tuple(sources),
            bytes(names),
            counts,
        )

    def _shorten(self, ids: list[int], where: str, counts: Counter[str]) -> int:
        """How many tokens to keep of an overlong conversation; 0 drops it."""
        if self._overlong == "error":
            raise DataError(
                f"{where}: {len(ids)} tokens, a row holds {self._capacity}: "
                "raise --max-seq-len, or choose --overlong turns or drop"
            )
        end_id = self._tokenizer.assistant_end_id
        length = 0 if self._overlong == "drop" else fit_turns(ids, self._capacity, end_id)
        counts["num_shortened" if length else "num_dropped"] += 1
        counts["num_turns_cut"] += ids[length:].count(end_id)
        return length


_renderer: _Renderer | None = None


def _set_up(_number: int, tokenizer_pickle: bytes, capacity: int, overlong: Overlong) -> None:
    global _renderer  # noqa: PLW0603 - a worker's set-up has no other place to leave it
    _renderer = _Renderer(parse_tokenizer(tokenizer_pickle, where="tokenizer.pkl"), capacity, overlong)


def _render(lines: Sequence[Line]) -> _Rendered:
    assert _renderer is not None
    return _renderer.render(lines)


def _cut(lines: Iterator[Line]) -> Iterator[list[Line]]:
    """Some lines at a time, as many as a process gets; one of the longest may come on top of `_CHUNK_BYTES`."""
    chunk, num_bytes = list[Line](), 0
    for line in lines:
        chunk.append(line)
        num_bytes += len(line[1])
        if len(chunk) == _CHUNK_LINES or num_bytes >= _CHUNK_BYTES:
            yield chunk
            chunk, num_bytes = [], 0
    if chunk:
        yield chunk


def _join(results: Sequence[_Rendered]) -> TokenSet:
    counts: Counter[str] = Counter(num_conversations=0, num_shortened=0, num_dropped=0, num_turns_cut=0)
    for result in results:
        counts.update(result.counts)
    sources = [name for result in results for name in result.sources]
    source_names = tuple(sorted(set(sources)))
    index = {name: number for number, name in enumerate(source_names)}
    mask = np.concatenate([np.zeros(0, np.uint8), *(result.mask for result in results)])
    offsets = np.concatenate([np.zeros(1, np.int64), *(result.lengths for result in results)]).cumsum()
    ids = [result.ids for result in results]
    return TokenSet(
        ids=np.concatenate(ids) if ids else np.zeros(0, np.uint16),
        mask=mask,
        offsets=offsets,
        sources=np.array([index[name] for name in sources], np.int64),
        supervised=_sum_between(mask, offsets),
        names=np.frombuffer(b"".join(result.names for result in results), np.uint8).reshape(-1, 8),
        source_names=source_names,
        counts={**counts, "num_tokens": len(mask), "num_supervised": int(mask.sum(dtype=np.int64))},
    )


def _sum_between(mask: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    if len(offsets) == 1:
        return np.zeros(0, np.int64)
    return np.add.reduceat(mask, offsets[:-1], dtype=np.int64)


def _arrays(tokens: TokenSet) -> dict[str, npt.NDArray[Any]]:
    names = ("ids", "mask", "offsets", "sources", "supervised", "names")
    return {name: getattr(tokens, name) for name in names}
