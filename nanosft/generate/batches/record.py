"""What is written down of a batch: before it is sent, once it has an id, and once its results are here. Pure.

A batch's record is all that is needed to send it again as it was: whoever finds it makes the same requests of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import orjson

from nanosft.errors import DataError
from nanosft.generate.records import RowState
from nanosft.generate.rows import Job

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
    """

    row: int
    prompt_variant: int
    attempt: int
    last_variant: int
    rejections: tuple[str, ...] = ()

    @classmethod
    def of(cls, job: Job) -> "RowRequest":
        """The next request of a row."""
        state = job.state
        return cls(job.row, state.prompt_variant, state.num_rejected, job.last_variant, tuple(state.details))

    def to_job(self) -> Job:
        """The row as it was when the batch was made."""
        return Job(self.row, RowState(self.prompt_variant, self.attempt, list(self.rejections)), self.last_variant)


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
    """

    name: str
    key: str
    model: str
    created_s: float
    held_usd: float
    requests: tuple[RowRequest, ...]

    @property
    def shard(self) -> tuple[int, int]:
        """Number of shards, and index of the one that made it."""
        num_shards, _, rest = self.name.partition("/")
        return int(num_shards), int(rest.partition("-")[0])

    def custom_id(self, request: RowRequest) -> str:
        """What the provider calls a request: row, prompt variant, attempt, and a part of the key."""
        return f"{request.row}-{request.prompt_variant}-{request.attempt}-{self.key[:_KEY_CHARS_IN_ID]}"

    def to_bytes(self) -> bytes:
        """The object that `parse_record` reads."""
        requests = [
            [item.row, item.prompt_variant, item.attempt, item.last_variant, item.rejections] for item in self.requests
        ]
        value = {
            "key": self.key,
            "model": self.model,
            "created_s": self.created_s,
            "held_usd": self.held_usd,
            "requests": requests,
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
        requests = tuple(
            RowRequest(int(row), int(variant), int(attempt), int(last), tuple(map(str, rejections)))
            for row, variant, attempt, last, rejections in value["requests"]
        )
        created_s, held_usd = float(value["created_s"]), float(value["held_usd"])
        record = BatchRecord(name, str(value["key"]), str(value["model"]), created_s, held_usd, requests)
        assert record.shard, "a name has a shard"
    except (ValueError, KeyError, TypeError) as exc:
        raise DataError(f"{where}: not a batch's record: remove it if no batch is with the provider") from exc
    return record


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
