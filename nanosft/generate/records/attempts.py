"""Names of attempts: an attempt is one process, and the keys of its parts hold its name. Pure but for the clock."""

from typing import Final

from nanosft.data import name_process
from nanosft.errors import DataError

_SHARDS: Final = "s"
"""Stands around the number of shards at the beginning of an attempt's name."""


def attempt_of(key: str) -> str:
    """The attempt that wrote a part.

    Raises:
        DataError: The key is not one of a part.
    """
    pieces = key.rpartition("/")[2].removesuffix(".jsonl").split("-")
    if len(pieces) != 3:  # noqa: PLR2004 - shard, attempt, part
        raise DataError(f"{key}: not a part's name (<shard>-<attempt>-<part>.jsonl): remove it")
    return pieces[1]


def name_attempt(num_shards: int | None) -> str:
    """A name for this process that no other has.

    Args:
        num_shards: All rows that it makes are its shard's, one of so many, and the name says so; None: they may be any.
    """
    shards = "" if num_shards is None else f"{_SHARDS}{num_shards}{_SHARDS}"
    return f"{shards}{name_process()}"


def is_of_another_shard(key: str, num_shards: int, shard_index: int) -> bool:
    """Whether a part's name says that it has no row of the shard: it is another's, of as many shards."""
    of_as_many = attempt_of(key).startswith(f"{_SHARDS}{num_shards}{_SHARDS}")
    return of_as_many and not key.rpartition("/")[2].startswith(f"{shard_index:05d}-")
