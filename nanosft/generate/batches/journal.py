"""Batches in the store: each is written down before the provider learns of it, and again with all that follows.

    batches/<num shards>/<shard>-<sequence>.json           its record: key and rows, with their answers where these
                                                           are to be scored; put if absent, before it is sent
    batches/<num shards>/<shard>-<sequence>.sent.json      the provider's id of it, and its base URL
    batches/<num shards>/<shard>-<sequence>.results.jsonl  a result a row, with its cost; deleted when all are in parts
    batches/<num shards>/<shard>-<sequence>.done.json      all its rows are in parts: nothing is left to do; says so
                                                           where the provider did not know the batch, and how many
                                                           rows were asked for again because of it

All methods block.
"""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from nanosft.errors import DataError
from nanosft.generate.batches.record import (
    BatchKind,
    BatchRecord,
    RowRequest,
    RowResult,
    encode_results,
    parse_record,
    parse_results,
)
from nanosft.store import NoConditionalPutError, Store

BATCHES: Final = "batches/"
_RECORD: Final = ".json"
_SENT: Final = ".sent.json"
_RESULTS: Final = ".results.jsonl"
_DONE: Final = ".done.json"


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch that is not done: its record, and how far it has come.

    Attributes:
        record: As it was put.
        batch_id: The provider's; None: nobody knows whether it was sent.
        endpoint: The base URL that it was sent to; empty: not told.
        has_results: They are in the store.
    """

    record: BatchRecord
    batch_id: str | None = None
    endpoint: str = ""
    has_results: bool = False


@dataclass
class Journal:
    """The batches of one data set.

    Attributes:
        store: The data set's prefix.
        shard: Number of shards, and index of this process's.
    """

    store: Store
    shard: tuple[int, int]
    _next: int = field(default=0, init=False)

    def read_open(self) -> list[OpenBatch]:
        """All batches that are not done and may hold rows of the shard, in order of their names.

        A batch of another shard of as many holds none, and its record, which may have answers in it, is not read.

        Raises:
            DataError: An object is not one of a batch.
        """
        suffixes: dict[str, set[str]] = {}
        for info in self.store.list(BATCHES):
            name, suffix = _split(info.key, self.store)
            suffixes.setdefault(name, set()).add(suffix)
        as_many = f"{self.shard[0]}/"
        own = f"{as_many}{self.shard[1]:05d}-"
        numbers = [int(name.removeprefix(own)) for name in suffixes if name.startswith(own)]
        self._next = max(numbers, default=-1) + 1
        for name, found in suffixes.items():
            if {_DONE, _RESULTS} <= found:  # killed between the two
                self.store.delete(BATCHES + name + _RESULTS)
        return [
            self._read(name, found)
            for name, found in sorted(suffixes.items())
            if _RECORD in found and _DONE not in found and (name.startswith(own) or not name.startswith(as_many))
        ]

    def put(self, kind: BatchKind, model: str, requests: Sequence[RowRequest], held_usd: float) -> BatchRecord | None:
        """Record a batch that is about to be sent; None where another process of the shard has recorded one."""
        name = f"{self.shard[0]}/{self.shard[1]:05d}-{self._next:06d}"
        record = BatchRecord(name, uuid.uuid4().hex, model, time.time(), held_usd, tuple(requests), kind)
        try:
            if not self.store.write_if_absent(BATCHES + name + _RECORD, record.to_bytes()):
                return None
        except NoConditionalPutError:
            self.store.write(BATCHES + name + _RECORD, record.to_bytes())
        self._next += 1
        return record

    def put_sent(self, record: BatchRecord, batch_id: str, endpoint: str) -> None:
        """Keep the provider's id of a batch, and where it was sent."""
        self.store.write(BATCHES + record.name + _SENT, orjson.dumps({"id": batch_id, "endpoint": endpoint}))

    def put_results(self, record: BatchRecord, results: Sequence[RowResult]) -> list[RowResult]:
        """Keep the results of a batch; returns those that another process has kept before, if one has."""
        key = BATCHES + record.name + _RESULTS
        try:
            if not self.store.write_if_absent(key, encode_results(results)):
                return self.read_results(record)
        except NoConditionalPutError:
            self.store.write(key, encode_results(results))
        return list(results)

    def read_results(self, record: BatchRecord) -> list[RowResult]:
        """What `put_results` has kept."""
        key = BATCHES + record.name + _RESULTS
        return parse_results(self.store.read(key), where=self.store.uri_of(key))

    def put_done(self, record: BatchRecord, results: Sequence[RowResult]) -> None:
        """All rows of a batch are in parts: its results need not be kept twice, but for what went wrong with it."""
        gone = [item.error for item in results if item.is_gone]
        note = {"gone": gone[0], "num_gone": len(gone)} if gone else {}
        self.store.write(BATCHES + record.name + _DONE, orjson.dumps(note))
        self.store.delete(BATCHES + record.name + _RESULTS)

    def _read(self, name: str, found: set[str]) -> OpenBatch:
        key = BATCHES + name + _RECORD
        record = parse_record(name, self.store.read(key), where=self.store.uri_of(key))
        batch_id, endpoint = None, ""
        if _SENT in found:
            sent = BATCHES + name + _SENT
            try:
                value = orjson.loads(self.store.read(sent))
                batch_id, endpoint = str(value["id"]), str(value.get("endpoint", ""))
            except (ValueError, KeyError, TypeError, AttributeError) as exc:
                raise DataError(f"{self.store.uri_of(sent)}: not what a batch's id is kept in: remove it") from exc
        return OpenBatch(record, batch_id, endpoint, _RESULTS in found)


def _split(key: str, store: Store) -> tuple[str, str]:
    """A batch's name, and which of its objects this is."""
    folder, _, file = key.removeprefix(BATCHES).rpartition("/")
    stem, _, suffix = file.partition(".")
    shard, _, sequence = stem.partition("-")
    suffix = f".{suffix}"
    if not (folder.isdigit() and shard.isdigit() and sequence.isdigit()) or suffix not in {
        _RECORD,
        _SENT,
        _RESULTS,
        _DONE,
    }:
        raise DataError(f"{store.uri_of(key)}: not an object of a batch: remove it")
    return f"{folder}/{stem}", suffix
