"""Parts: what a run has flushed, and what is read back of it.

    rows/<shard>-<attempt>-<part>.jsonl      accepted conversations
    rejects/<shard>-<attempt>-<part>.jsonl   every paid answer that was rejected, and every one that never came

An attempt is one process: its name is its own, so two processes never write the same key. A part's rejects are put
before its rows.
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec
import orjson

from nanosft.errors import DataError
from nanosft.generate.records.attempts import attempt_of
from nanosft.generate.records.judgements import judge_pico
from nanosft.generate.records.money import pico_of
from nanosft.generate.records.repeats import Repeats
from nanosft.generate.records.row_state import RowState
from nanosft.generate.records.totals import BATCH_KEY, PROMPT_VARIANT_KEY, Tally
from nanosft.manifest import ManifestObject
from nanosft.store import Store, open_store

ROWS: Final = "rows/"
REJECTS: Final = "rejects/"
_NOT_OURS: Final = "not a line of a generated part: remove the object"
_UNLIKE_OURS: Final = (AttributeError, KeyError, TypeError, ValueError, OverflowError)
"""What counting raises where a value is of another type than nanosft writes."""
_REJECT_KEYS: Final = frozenset({"row", PROMPT_VARIANT_KEY, "attempt", "reason", "detail", "given_up"})


@dataclass(frozen=True, slots=True)
class Part:
    """Lines to be flushed under one part number."""

    number: int
    rows: bytes
    rejects: bytes


class PartBuffer:
    """Lines that are not flushed yet.

    Args:
        shard_index: This process's shard.
        attempt: Name of this process, without `-`.
    """

    def __init__(self, shard_index: int, attempt: str) -> None:
        self._stem = f"{shard_index:05d}-{attempt}"
        self._rows: list[bytes] = []
        self._rejects: list[bytes] = []
        self._number = 0

    @property
    def num_rows(self) -> int:
        """Accepted rows waiting."""
        return len(self._rows)

    def add_row(self, line: bytes) -> None:
        """Add one accepted conversation's line."""
        self._rows.append(line)

    def add_reject(self, record: Mapping[str, Any]) -> None:
        """Add what `reject_record` made."""
        self._rejects.append(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

    def take(self) -> Part | None:
        """All lines waiting, as the next part; None when there are none."""
        if not self._rows and not self._rejects:
            return None
        part = Part(self._number, b"".join(self._rows), b"".join(self._rejects))
        self._rows, self._rejects = [], []
        self._number += 1
        return part

    def put(self, store: Store, part: Part) -> ManifestObject | None:
        """Write one part; returns its rows' object, if it has rows. Blocking: called in a thread."""
        name = f"{self._stem}-{part.number:05d}.jsonl"
        if part.rejects:
            store.write(REJECTS + name, part.rejects)
        if not part.rows:
            return None
        written = store.write(ROWS + name, part.rows)
        return ManifestObject(
            key=written.key, size_bytes=written.size_bytes, sha256=written.sha256, num_rows=part.rows.count(b"\n")
        )

    def put_locally(self, parts: Iterable[Part]) -> str:
        """Write parts that no store took into a new folder of this machine; the folder, and what to do with it."""
        folder = open_store(tempfile.mkdtemp(prefix="nanosft-rescue-"))
        for part in parts:
            self.put(folder, part)
        return f"{folder.uri}: copy its folders into --out before the same command runs again"


@dataclass
class PlanState:
    """What all parts say of the plan's rows, and of one shard's.

    Attributes:
        accepted: (num,) 1 where a row is in.
        given_up: (num,) 1 where a row was given up.
        rows: The state of those rows of the shard that were rejected at least once and are not in.
        tally: Counts and costs of the shard's rows.
        objects: Parts that hold rows of the shard, by key.
        pico_by_attempt: Known cost of each process's parts, in picodollars.
        taken: Rows whose answers of a batch are in, by the batch's name; of the batches that were asked for.
    """

    accepted: bytearray
    given_up: bytearray
    rows: dict[int, RowState] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    objects: dict[str, ManifestObject] = field(default_factory=dict)
    pico_by_attempt: Counter[str] = field(default_factory=Counter)
    taken: dict[str, set[int]] = field(default_factory=dict)

    def count(self, rows: Iterable[int]) -> tuple[int, int]:
        """How many of the rows are in, and how many were given up and are not."""
        pairs = [(self.accepted[row], self.given_up[row]) for row in rows]
        return sum(here for here, _ in pairs), sum(gone and not here for here, gone in pairs)


def read_state(
    store: Store,
    shard: range,
    num: int,
    *,
    batches: Iterable[str] = (),
    skip: Callable[[str], bool] = lambda _key: False,
) -> PlanState:
    """Read all parts, one in memory at a time.

    Args:
        store: The data set's prefix.
        shard: The rows of the shard.
        num: Rows of the plan.
        batches: Names of those whose rows are looked for.
        skip: Whether a part, by its key, has nothing that the caller needs to know.

    Raises:
        DataError: A part holds a row that the plan does not have, or a line that nanosft did not write.
    """
    state = PlanState(bytearray(num), bytearray(num), taken={name: set() for name in batches})
    repeats = Repeats(partial(_read_own_rows, store), partial(_read_own_rejects, store))
    for prefix, take in ((ROWS, _take_rows), (REJECTS, _take_rejects)):
        for info in store.list(prefix):
            if not skip(info.key):
                take(state, store, info.key, shard, num, repeats)
    return state


@dataclass(frozen=True, slots=True)
class ReadPart:
    """One part as it was read: its lines, and the records on them with URI and line number."""

    attempt: str
    object: ManifestObject
    lines: list[bytes]
    records: list[tuple[str, dict[str, Any]]]


class _MetaOnly(msgspec.Struct, gc=False):
    """Of a row's line: its messages are passed over, in a third of the time that the whole line takes."""

    meta: dict[str, Any]


_META_DECODER: Final = msgspec.json.Decoder(_MetaOnly)


@dataclass(frozen=True, slots=True)
class _ReadMetas:
    """A part with rows: the metas of its lines."""

    attempt: str
    object: ManifestObject
    metas: list[dict[str, Any]]


def read_part(store: Store, key: str) -> ReadPart:
    """Read one part.

    Raises:
        DataError: The key or a line is not one that nanosft wrote.
    """
    data = store.read(key)
    lines = data.splitlines(keepends=True)
    records = _read_lines(lines, store.uri_of(key), is_row=key.startswith(ROWS))
    return ReadPart(attempt_of(key), _object_of(key, data, len(lines)), lines, records)


def read_metas(store: Store, key: str) -> _ReadMetas:
    """Read no more than the metas of a part with rows. Raises as `read_part`."""
    data = store.read(key)
    try:
        metas = [line.meta for line in _META_DECODER.decode_lines(data)]
        is_right = len(metas) == data.count(b"\n") and all("row" in meta for meta in metas)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        is_right = False
    if not is_right:  # the lines as wholes tell what is wrong with them
        lines = data.splitlines(keepends=True)
        metas = [record["meta"] for _, record in _read_lines(lines, store.uri_of(key), is_row=True)]
    return _ReadMetas(attempt_of(key), _object_of(key, data, len(metas)), metas)


def _object_of(key: str, data: bytes, num_rows: int) -> ManifestObject:
    return ManifestObject(key=key, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), num_rows=num_rows)


def read_records(store: Store, key: str) -> list[tuple[str, dict[str, Any]]]:
    """The records of one part, each with its URI and line number. Raises as `read_part`."""
    return read_part(store, key).records


def _read_own_rows(store: Store, process: str) -> Iterator[Mapping[str, Any]]:
    """Metas of the rows that one process has put."""
    for key in _keys_of(store, ROWS, process):
        yield from read_metas(store, key).metas


def _read_own_rejects(store: Store, process: str) -> Iterator[Mapping[str, Any]]:
    for key in _keys_of(store, REJECTS, process):
        yield from (record for _, record in read_records(store, key))


def _keys_of(store: Store, prefix: str, process: str) -> list[str]:
    return [info.key for info in store.list(prefix) if attempt_of(info.key) == process]


def _read_lines(lines: Iterable[bytes], uri: str, *, is_row: bool) -> list[tuple[str, dict[str, Any]]]:
    return [_record_of(line, f"{uri}:line {number}", is_row=is_row) for number, line in enumerate(lines, 1)]


def _record_of(line: bytes, where: str, *, is_row: bool) -> tuple[str, dict[str, Any]]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as exc:
        raise DataError(f"{where}: not JSON: {exc}") from exc
    if not isinstance(record, dict) or not (_is_row(record) if is_row else record.keys() >= _REJECT_KEYS):
        raise DataError(f"{where}: {_NOT_OURS}")
    return where, record


def _is_row(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("meta"), dict) and "row" in record["meta"]


def _take_rows(state: PlanState, store: Store, key: str, shard: range, num: int, repeats: Repeats) -> None:
    part, uri, number = read_metas(store, key), store.uri_of(key), 0
    pico = 0
    try:
        for number, meta in enumerate(part.metas, 1):
            row = _row_of(meta, num, uri, number)
            state.accepted[row] = 1
            pico += pico_of(meta.get("cost_usd")) + judge_pico(meta.get("judge"))
            _add_taken(state, meta, row)
            if row in shard:
                state.objects[key] = part.object
                repeats.add_row(state.tally, meta, part.attempt)
    except _UNLIKE_OURS as exc:
        raise DataError(f"{uri}:line {number}: {_NOT_OURS}") from exc
    state.pico_by_attempt[part.attempt] += pico


def _take_rejects(state: PlanState, store: Store, key: str, shard: range, num: int, repeats: Repeats) -> None:
    part, uri, number = read_part(store, key), store.uri_of(key), 0
    try:
        for number, (_, record) in enumerate(part.records, 1):
            row = _row_of(record, num, uri, number)
            state.pico_by_attempt[part.attempt] += pico_of(record.get("cost_usd")) + judge_pico(record.get("judge"))
            _add_taken(state, record, row)
            state.given_up[row] |= record["given_up"] is True
            if row in shard and not repeats.has(record, part.attempt):
                state.tally.add_reject(record)
                if not state.accepted[row]:
                    state.rows.setdefault(row, RowState()).add_record(record)
    except _UNLIKE_OURS as exc:
        raise DataError(f"{uri}:line {number}: {_NOT_OURS}") from exc


def _add_taken(state: PlanState, record: Mapping[str, Any], row: int) -> None:
    if (taken := state.taken.get(record.get(BATCH_KEY, ""))) is not None:
        taken.add(row)


def _row_of(record: Mapping[str, Any], num: int, uri: str, line: int) -> int:
    row = record["row"]
    if not isinstance(row, int) or not 0 <= row < num:
        raise DataError(f"{uri}:line {line}: row {row} is not in a plan of {num} rows")
    return row
