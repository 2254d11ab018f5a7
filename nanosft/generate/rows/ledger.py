"""The budget's ledger in the store, as it is read: what shards have reserved, and what is one's share of the rest.

budget/<num shards>/<shard>-<sequence>.json    a shard's ledger; each entry holds the sum reserved so far
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from nanosft.errors import DataError
from nanosft.generate.rows.admission import ROUND_USD
from nanosft.store import Store

BUDGET: Final = "budget/"
STEPS_PER_SHARE: Final = 100


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """The latest entry of a shard's ledger.

    Attributes:
        sequence: Its number, from 0; -1 before the first.
        reserved_usd: Reserved by all attempts so far, less what was put back.
        attempts: Processes that reserved.
    """

    sequence: int = -1
    reserved_usd: float = 0.0
    attempts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Share:
    """What a shard may spend over all its attempts, and how it is reserved."""

    usd: float
    step_usd: float


def read_ledgers(store: Store) -> dict[tuple[int, int], LedgerEntry]:
    """The latest entry of each shard's ledger, by (number of shards, shard index)."""
    latest: dict[tuple[int, int], str] = {}
    for info in store.list(BUDGET):
        try:
            num_shards, name = info.key.removeprefix(BUDGET).removesuffix(".json").split("/")
            latest[int(num_shards), int(name.split("-")[0])] = info.key
        except ValueError as exc:
            raise DataError(f"{store.uri_of(info.key)}: not a budget's ledger entry: remove it") from exc
    return {shard: _parse(store.read(key), key, store) for shard, key in latest.items()}


def split_budget(
    budget_usd: float,
    *,
    num_rows: int,
    num_shards: int,
    shard_index: int,
    ledgers: Mapping[tuple[int, int], LedgerEntry],
    unbudgeted_usd: float,
) -> Share:
    """A shard's share of the budget: by its rows, of what other numbers of shards and unbudgeted runs left.

    Args:
        budget_usd: The budget of the whole data set.
        num_rows: Rows of the plan.
        num_shards: Shards of this run.
        shard_index: This process's shard.
        ledgers: What `read_ledgers` returned.
        unbudgeted_usd: Spent by processes that reserved nothing.
    """
    elsewhere_usd = sum(entry.reserved_usd for (other, _), entry in ledgers.items() if other != num_shards)
    left_usd = max(0.0, budget_usd - elsewhere_usd - unbudgeted_usd)
    share_usd = left_usd * len(range(shard_index, num_rows, num_shards)) / num_rows
    return Share(share_usd, share_usd / STEPS_PER_SHARE)


def _parse(data: bytes, key: str, store: Store) -> LedgerEntry:
    try:
        record = orjson.loads(data)
        sequence = int(key.removesuffix(".json").rpartition("-")[2])
        reserved_usd, attempts = float(record["reserved_usd"]), tuple(map(str, record["attempts"]))
    except (ValueError, KeyError, TypeError) as exc:
        raise DataError(f"{store.uri_of(key)}: not a budget's ledger entry: remove it") from exc
    if not -ROUND_USD <= reserved_usd < math.inf:  # sums of changes may end a little below nothing
        raise DataError(f"{store.uri_of(key)}: a ledger that reserves {reserved_usd} dollars: remove it")
    return LedgerEntry(sequence, max(0.0, reserved_usd), attempts)
