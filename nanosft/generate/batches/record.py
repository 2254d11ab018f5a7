"""What is written down of a batch: before it is sent, once it has an id, and once its results are here. Pure.

A batch's record is all that is needed to send it again as it was: whoever finds it makes the same requests of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import orjson

from nanosft.errors import DataError
from nanosft.generate.records import RowState
from nanosft.generate.rows import Job

BatchKind = Literal["rows", "scores"]
"""What a batch asks for: conversations, or a judge's scores of some."""
_KINDS: Final[Mapping[str, BatchKind]] = {"rows": "rows", "scores": "scores"}
_KEY_CHARS_IN_ID: Final = 12


@dataclass(frozen=True, slots=True)
class RowRequest:
    """One request of a batch.

    Attributes:
        row: The plan's row; a batch asks for it once.
        prompt_variant: Its prompt.
        attempt: Answers to this prompt that were rejected.
        last_variant: The last prompt to try.
        rejections: Why they were, latest last.
        held: The record of the answer that is to be scored; None where one is to be written.
        num_tries: Answers of the judge about it that could not be read.
    """

    row: int
    prompt_variant: int
    attempt: int
    last_variant: int
    rejections: tuple[str, ...] = ()
    held: Mapping[str, Any] | None = None
    num_tries: int = 0

    @classmethod
    def of(cls, job: Job) -> "RowRequest":
        """The next request of a row: to have its answer scored, where it has one."""
        state, held = job.state, job.state.waiting
        rejections, num_tries = tuple(state.details), state.num_tries
        return cls(job.row, state.prompt_variant, state.num_rejected, job.last_variant, rejections, held, num_tries)

    def to_job(self) -> Job:
        """The row as it was when the batch was made."""
        state = RowState(self.prompt_variant, self.attempt, list(self.rejections), self.held)
        if self.held is not None:
            for _ in range(self.num_tries):
                state.add_try(self.held["raw"])
        return Job(self.row, state, self.last_variant)

    @property
    def name(self) -> str:
        """Row, prompt variant, attempt, and which try of the judge it is: no other request has it."""
        written = f"{self.row}-{self.prompt_variant}-{self.attempt}"
        return written if self.held is None else f"{written}-judge{self.num_tries}"

    def to_list(self) -> list[Any]:
        """What `_parse_request` reads."""
        values = [self.row, self.prompt_variant, self.attempt, self.last_variant, self.rejections]
        return values if self.held is None else [*values, self.held, self.num_tries]


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch as it is recorded before it is sent.

    Attributes:
        name: Where it stands: `<num shards>/<shard>-<sequence>`; rows and rejects name it as their `batch`.
        key: The idempotency key: the same for every try to send it.
        model: The slug that all its requests go to.
        created_s: When it was recorded, in seconds since 1970.
        held_usd: What the budget holds for it; 0 without a budget.
        requests: In the order in which they are sent.
        kind: What is asked for; in an object that does not say so, rows.
    """

    name: str
    key: str
    model: str
    created_s: float
    held_usd: float
    requests: tuple[RowRequest, ...]
    kind: BatchKind = "rows"

    @property
    def shard(self) -> tuple[int, int]:
        """Number of shards, and index of the one that made it."""
        num_shards, _, rest = self.name.partition("/")
        return int(num_shards), int(rest.partition("-")[0])

    def custom_id(self, request: RowRequest) -> str:
        """What the provider calls a request: its name, and a part of the key."""
        return f"{request.name}-{self.key[:_KEY_CHARS_IN_ID]}"

    def to_bytes(self) -> bytes:
        """The object that `parse_record` reads."""
        value = {
            "kind": self.kind,
            "key": self.key,
            "model": self.model,
            "created_s": self.created_s,
            "held_usd": self.held_usd,
            "requests": [item.to_list() for item in self.requests],
        }
        return orjson.dumps(value)


@dataclass(frozen=True, slots=True)
class RowResult:
    """What a batch brought for one row.

    Attributes:
        row: The plan's row.
        body: The answer as the chat API gives it alone; empty where there is none.
        error: Why there is none.
        cost_pico: Its part of what the batch cost, in picodollars; None: nobody knows.
    """

    row: int
    body: str
    error: str
    cost_pico: int | None

    @property
    def is_gone(self) -> bool:
        """Whether it is lost with its batch, and may have been billed."""
        return not self.body and self.cost_pico is None


def parse_record(name: str, data: bytes, *, where: str) -> BatchRecord:
    """Read a record.

    Raises:
        DataError: It is none.
    """
    try:
        value = orjson.loads(data)
        created_s, held_usd = float(value["created_s"]), float(value["held_usd"])
        kind = _KINDS[value.get("kind", "rows")]
        requests = tuple(_parse_request(*item, is_scored=kind == "scores") for item in value["requests"])
        record = BatchRecord(name, str(value["key"]), str(value["model"]), created_s, held_usd, requests, kind)
        assert record.shard, "a name has a shard"
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DataError(f"{where}: not a batch's record: remove it if no batch is with the provider") from exc
    return record


def _parse_request(
    row: Any, variant: Any, attempt: Any, last: Any, rejections: Any, *scored: Any, is_scored: bool
) -> RowRequest:
    """What `RowRequest.to_list` gave.

    Raises:
        TypeError: It is none.
    """
    request = RowRequest(int(row), int(variant), int(attempt), int(last), tuple(map(str, rejections)))
    if not is_scored:
        return request
    held, num_tries = scored
    return replace(request, held=dict(held), num_tries=int(num_tries))


def encode_results(results: Iterable[RowResult]) -> bytes:
    """Results as the lines that `parse_results` reads."""
    lines = ([item.row, item.body, item.error, item.cost_pico] for item in results)
    return b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)


def parse_results(data: bytes, *, where: str) -> list[RowResult]:
    """Read results.

    Raises:
        DataError: They are none.
    """
    try:
        return [
            RowResult(int(row), str(body), str(error), None if pico is None else int(pico))
            for row, body, error, pico in map(orjson.loads, data.splitlines())
        ]
    except (ValueError, TypeError) as exc:
        raise DataError(f"{where}: not a batch's results: remove the object, and they are fetched again") from exc
