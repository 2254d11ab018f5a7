"""A stage that ended for good says so beside where its manifest would be, so that nobody waits for it in vain.

    failure.json   {"command": "generate", "exit_code": 4, "message": "…", "shard": 0, "time": "2026-11-28T13:00:00Z"}

It is a matter of jobs: only a process whose manifest sets `JOB_MARKS_FAILURE=true` and `NANOSFT_OUT` writes or removes
one. What ends for good is a permanent exit code, or any code on the last try, which the manifest lets the process know:
`JOB_FAILURE_COUNT` (failures before this try) and `JOB_BACKOFF_LIMIT` (how many there may be). `nanosft wait` reads it;
the next start takes it away. A process that is killed cannot write one: for that a wait has its own end.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from nanosft.errors import (
    EXIT_OK,
    EXIT_SIGINT,
    EXIT_SIGTERM,
    ConfigError,
    CreditError,
    DataError,
    NanosftError,
    TrainError,
)
from nanosft.store import MissingObjectError, Store, open_store

FAILURE_KEY: Final = "failure.json"
PERMANENT: Final = {cls.exit_code: cls for cls in (ConfigError, DataError, CreditError, TrainError)}
"""Exit codes that every further try would end with too, and their errors."""
MARKS_VARIABLE: Final = "JOB_MARKS_FAILURE"

_OUT_VARIABLE: Final = "NANOSFT_OUT"
_COMMANDS: Final = frozenset({"generate", "mix", "train", "eval", "wait", "doctor"})
"""What a stage's containers run. A wait that ends with another stage's failure marks its own stage too: the next waits
for that one."""
_NO_FAILURE: Final = frozenset({EXIT_OK, EXIT_SIGINT, EXIT_SIGTERM})
_log = logging.getLogger(__name__)


class Failure(BaseModel):
    """How a stage ended for good.

    Attributes:
        command: The command.
        exit_code: Its exit code.
        message: Its error line.
        shard: Which shard of several it was.
        time: When, in UTC.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    command: str
    exit_code: int
    message: str
    shard: int = 0
    time: str = ""

    def to_error(self, where: str) -> NanosftError:
        """The error that a waiter ends with: the stage's own where that is permanent, else that its set is unfinished.

        Args:
            where: URI of the marker.
        """
        cls = PERMANENT.get(self.exit_code, DataError)
        text = f"{where}: {self.command} has ended for good with exit code {self.exit_code}: {self.message}"
        return cls(f"{text}: mend it and start that stage again")


def read_failure(store: Store) -> Failure | None:
    """The marker at the store's root; None where there is none, or none that can be read."""
    try:
        return Failure.model_validate(orjson.loads(store.read(FAILURE_KEY)))
    except (MissingObjectError, ValidationError, orjson.JSONDecodeError):
        return None


@dataclass(frozen=True, slots=True)
class JobProcess:
    """A container of a stage's job, as its manifest describes it.

    Attributes:
        command: The command it runs.
        out: URI of the stage's output prefix.
        shard: Which shard it makes, of `num_shards`.
        num_shards: How many processes make the set.
        is_last_try: Whether another failure is one too many.
    """

    command: str
    out: str
    shard: int = 0
    num_shards: int = 1
    is_last_try: bool = False

    @classmethod
    def find(cls, arguments: Sequence[str], environ: Mapping[str, str]) -> Self | None:
        """The process that runs `nanosft <arguments>`; None where it marks nothing."""
        command, out = next(iter(arguments), ""), environ.get(_OUT_VARIABLE, "")
        is_first_rank = environ.get("RANK", "0") == "0"
        if environ.get(MARKS_VARIABLE) != "true" or command not in _COMMANDS or not out or not is_first_rank:
            return None
        limit, count = environ.get("JOB_BACKOFF_LIMIT", ""), environ.get("JOB_FAILURE_COUNT", "")
        return cls(
            command=command,
            out=out,
            shard=_number(environ.get("JOB_COMPLETION_INDEX", "")) if command == "generate" else 0,
            num_shards=_number(environ.get("NANOSFT_NUM_SHARDS", "")) or 1,
            is_last_try=limit.isdigit() and _number(count) >= int(limit),
        )

    def clear(self) -> None:
        """Take away what an earlier start of this process has left; the marker of another shard that there is stays."""
        try:
            store = open_store(self.out)
            found = read_failure(store)
            if found is not None and (found.shard == self.shard or found.shard >= self.num_shards):
                store.delete(FAILURE_KEY)
        except NanosftError as exc:  # what is wrong, the command itself will say
            _log.warning("%s: %s cannot be looked for: %s", self.out, FAILURE_KEY, exc)

    def mark(self, exit_code: int, message: str) -> None:
        """Write the marker, if the process ends for good with this exit code."""
        if exit_code in _NO_FAILURE or not (exit_code in PERMANENT or self.is_last_try):
            return
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        failure = Failure(command=self.command, exit_code=exit_code, message=message, shard=self.shard, time=time)
        try:
            open_store(self.out).write(FAILURE_KEY, orjson.dumps(failure.model_dump()))
        except NanosftError as exc:
            _log.warning("%s: the failure cannot be marked: %s", self.out, exc)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
