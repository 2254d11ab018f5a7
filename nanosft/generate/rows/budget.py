"""The budget: money is reserved in the store before it is spent.

A shard may spend its share: the budget times its part of the plan's rows. It reserves the share step by step (1 % each)
by putting the ledger's next entry if absent, so two pods on one index reserve from one share, and a pod that was killed
leaves at most one step reserved and not spent. A pod that ends well puts what it did not spend back, by another entry.
So all pods together overspend by no more than the requests in flight. Where the store cannot put if absent, a budget is
refused before anything is spent.

Which requests it covers, and what they are taken to cost, is told in `admission`; where no price is known it is a step.

For a batch all is reserved at once, and held until the batch has ended, through the end of this process and into the
next one. Rows that a judge is to score are sent only as far as the share leaves money for their scores too.

What other numbers of shards have reserved, and what was spent without any budget, is taken off the budget first.
"""

import asyncio
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from nanosft.errors import CreditError
from nanosft.generate.rows.admission import MIN_COST_USD, ROUND_USD, Admission
from nanosft.generate.rows.ledger import BUDGET, LedgerEntry, Share, read_ledgers
from nanosft.store import NoConditionalPutError, Store


@dataclass(frozen=True, slots=True)
class Owed:
    """Requests of another kind that will follow those of a batch: money must be left for them.

    Attributes:
        account: Of the budget.
        nums: How many, if the batch has none of its requests, one of them, two, and so on.
    """

    account: int
    nums: Sequence[int]


class Budget(Admission):
    """What one process of a plan may spend. Used from one event loop.

    Args:
        store: The data set's prefix.
        shard: Number of shards, and index of this one.
        attempt: Name of this process.
        share: What `split_budget` returned.
        entry: The shard's latest ledger entry, if it has any.
        mean_cost_usd: What an answer is taken to cost until one has come; 0: nobody knows, and a step is taken.
    """

    def __init__(
        self,
        store: Store,
        shard: tuple[int, int],
        *,
        attempt: str,
        share: Share,
        entry: LedgerEntry | None,
        mean_cost_usd: float,
    ) -> None:
        super().__init__(mean_cost_usd, unpriced_usd=share.step_usd)
        self._store = store
        self._shard = shard
        self._key = f"{BUDGET}{shard[0]}/{shard[1]:05d}"
        self._attempt = attempt
        self._share = share
        self._entry = entry or LedgerEntry()

    async def hold(self, most: int, account: int = 0, owed: Owed | None = None) -> tuple[int, float]:
        """Reserve for a batch: how many of at most `most` requests the share allows, and the dollars held for them.

        The dollars are held through the end of this process: whoever learns what the batch cost calls `settle`. What is
        owed is left in the share, and not reserved: a process that is killed leaves no more reserved than it held.

        Raises:
            CreditError: The share allows none.
            NoConditionalPutError: The store cannot keep a budget.
        """
        cost_usd = max(self._accounts[account].mean_cost_usd, MIN_COST_USD)
        owed_cost_usd = 0.0 if owed is None else max(self._accounts[owed.account].mean_cost_usd, MIN_COST_USD)

        def needs_usd(num: int) -> float:
            return num * cost_usd + (0.0 if owed is None else owed.nums[num] * owed_cost_usd)

        async with self._lock:
            while True:
                left_usd = self._share.usd - self._entry.reserved_usd - self._lacks(account, num=0)
                num = bisect_right(range(1, most + 1), left_usd + ROUND_USD, key=needs_usd)
                if num == 0:
                    raise self._reached()
                if (lacking_usd := self._lacks(account, num)) <= ROUND_USD:
                    break
                try:
                    await self._reserve(lacking_usd)
                except CreditError:  # or another process has reserved meanwhile: then for fewer
                    if num == 1:
                        raise
            self._held_usd += num * cost_usd
        return num, num * cost_usd

    def adopt(self, held_usd: float) -> None:
        """Take over what an earlier process of the shard has held for a batch."""
        self._reserved_usd += held_usd
        self._held_usd += held_usd

    def settle(self, held_usd: float, costs_usd: Iterable[float | None], account: int = 0) -> None:
        """A batch has ended: what its requests cost takes the place of what was held."""
        self._held_usd -= held_usd
        for cost_usd in costs_usd:
            self.spend(cost_usd, account)
        self._end_one()

    def close(self) -> None:
        """Put back what was reserved and neither spent nor held. Blocking."""
        used_usd = self.spent_usd + self._held_usd
        change_usd = used_usd - self._reserved_usd
        while abs(change_usd) > ROUND_USD and not self._put(change_usd):
            self._entry = read_ledgers(self._store)[self._shard]
        self._reserved_usd = used_usd

    async def _reserve(self, lacking_usd: float) -> None:
        await asyncio.to_thread(self._reserve_steps, lacking_usd)

    def _reserve_steps(self, lacking_usd: float) -> None:
        """Reserve whole steps that cover what lacks, by one put; all that is left of the share where it is less."""
        while True:
            left_usd = self._share.usd - self._entry.reserved_usd
            if left_usd + ROUND_USD < lacking_usd:
                raise self._reached()
            steps_usd = math.ceil((lacking_usd - ROUND_USD) / self._share.step_usd) * self._share.step_usd
            if self._put(min(left_usd, steps_usd)):
                return
            self._entry = read_ledgers(self._store)[self._shard]

    def _reached(self) -> CreditError:
        return CreditError(
            f"{self._store.uri_of(self._key)}: the budget is reached: ${self._entry.reserved_usd:.4f} of its "
            f"${self._share.usd:.4f} are spent or reserved: everything is flushed; run the same command "
            "with a larger --budget-usd to go on"
        )

    def _put(self, change_usd: float) -> bool:
        """Put the next entry; False when another process was first."""
        attempts = self._entry.attempts
        entry = LedgerEntry(
            self._entry.sequence + 1,
            self._entry.reserved_usd + change_usd,
            attempts if self._attempt in attempts else (*attempts, self._attempt),
        )
        record = {
            "reserved_usd": entry.reserved_usd,
            "attempts": entry.attempts,
            "change_usd": change_usd,
            "by": self._attempt,
        }
        key = f"{self._key}-{entry.sequence:06d}.json"
        try:
            is_put = self._store.write_if_absent(key, orjson.dumps(record))
        except NoConditionalPutError as exc:
            self._store.delete(key)  # what was reserved here is never spent
            raise NoConditionalPutError(
                f"{exc}: two processes could spend the same money: leave --budget-usd out, or use another --out"
            ) from exc
        if not is_put:
            return False
        self._entry = entry
        self._reserved_usd += change_usd
        return True
