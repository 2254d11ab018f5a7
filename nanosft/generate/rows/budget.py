"""The budget: money is reserved in the store before it is spent.

A shard may spend its share: the budget times its part of the plan's rows. It reserves the share step by step (1 % each)
by putting the ledger's next entry if absent, so two pods on one index reserve from one share, and a pod that was killed
leaves at most one step reserved and not spent. A pod that ends well puts what it did not spend back, by another entry.
So all pods together overspend by no more than the requests in flight. Where the store cannot put if absent, a budget is
refused before anything is spent.

Whatever may be billed is admitted before it is sent: each request of a row, those that the client sends again among
them. An answer that never came counts with the mean of those that did; until one has come, with the estimate; and with
one step where no price is known. Requests in flight are reserved for as dearly: where they leave nothing for one more,
it waits until one of them has ended, and only where none is in flight the budget is reached.

For a batch all is reserved at once, and held until the batch has ended, through the end of this process and into the
next one.

What other numbers of shards have reserved, and what was spent without any budget, is taken off the budget first.
"""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import orjson

from nanosft.errors import CreditError
from nanosft.generate.rows.ledger import BUDGET, LedgerEntry, Share, read_ledgers
from nanosft.store import NoConditionalPutError, Store

_ROUND_USD: Final = 1e-9
_MIN_COST_USD: Final = 1e-6
"""A request is taken to cost at least this, so that none is admitted without a reservation."""


@dataclass
class _Account:
    """Requests of one kind: what they have cost, and how many are in flight.

    Attributes:
        first_cost_usd: What an answer is taken to cost until one has come.
    """

    first_cost_usd: float
    known_usd: float = 0.0
    num_unknown: int = 0
    num_billed: int = 0
    num_in_flight: int = 0

    @property
    def mean_cost_usd(self) -> float:
        return self.known_usd / self.num_billed if self.num_billed else self.first_cost_usd

    @property
    def spent_usd(self) -> float:
        return self.known_usd + self.num_unknown * self.mean_cost_usd


class Budget:
    """What one process may spend. Used from one event loop.

    It counts the writer's requests; `meter` counts those of another kind apart, under the same share.

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
        self._store = store
        self._shard = shard
        self._key = f"{BUDGET}{shard[0]}/{shard[1]:05d}"
        self._attempt = attempt
        self._share = share
        self._entry = entry or LedgerEntry()
        self._reserved_usd = 0.0  # by this process
        self._held_usd = 0.0  # of it, for batches that have not ended
        self._accounts = [_Account(mean_cost_usd or share.step_usd)]
        self._lock = asyncio.Lock()
        self._one_ended = asyncio.Event()

    @property
    def mean_cost_usd(self) -> float:
        """What an answer is taken to cost: the mean of those that came."""
        return self._accounts[0].mean_cost_usd

    @property
    def _spent_usd(self) -> float:
        return sum(account.spent_usd for account in self._accounts)

    def meter(self, mean_cost_usd: float) -> "BudgetMeter":
        """The same budget, for requests that cost otherwise, such as a judge's.

        Args:
            mean_cost_usd: What an answer is taken to cost until one has come; 0: nobody knows, and a step is taken.
        """
        self._accounts.append(_Account(mean_cost_usd or self._share.step_usd))
        return BudgetMeter(self, len(self._accounts) - 1)

    async def admit(self, account: int = 0) -> None:
        """Reserve what one more request needs; it counts as in flight until `withdraw`.

        Raises:
            CreditError: The share is used up.
            NoConditionalPutError: The store cannot keep a budget.
        """
        if self._lacks(account) > _ROUND_USD:
            async with self._lock:
                while (lacking_usd := self._lacks(account)) > _ROUND_USD:
                    self._one_ended.clear()
                    try:
                        await asyncio.to_thread(self._reserve, lacking_usd)
                    except CreditError:
                        is_any_in_flight = any(account.num_in_flight for account in self._accounts)
                        if not is_any_in_flight and not self._one_ended.is_set():
                            raise
                        await self._one_ended.wait()
        self._accounts[account].num_in_flight += 1

    def spend(self, cost_usd: float | None, account: int = 0) -> None:
        """An answer was paid for; None: it never came and may have been, and the mean is taken."""
        if cost_usd is None:
            self._accounts[account].num_unknown += 1
        else:
            self._accounts[account].known_usd += cost_usd
            self._accounts[account].num_billed += cost_usd > 0

    def withdraw(self, account: int = 0) -> None:
        """An admitted request has ended; what it cost was told to `spend`."""
        self._accounts[account].num_in_flight -= 1
        self._one_ended.set()

    async def hold(self, most: int) -> tuple[int, float]:
        """Reserve for a batch: how many of at most `most` requests the share allows, and the dollars held for them.

        The dollars are held through the end of this process: whoever learns what the batch cost calls `settle`.

        Raises:
            CreditError: The share allows none.
            NoConditionalPutError: The store cannot keep a budget.
        """
        cost_usd = max(self.mean_cost_usd, _MIN_COST_USD)
        async with self._lock:
            while True:
                left_usd = self._share.usd - self._entry.reserved_usd - self._lacks(num=0)
                num = min(most, max(1, int((left_usd + _ROUND_USD) / cost_usd)))
                if (lacking_usd := self._lacks(num=num)) <= _ROUND_USD:
                    break
                try:
                    await asyncio.to_thread(self._reserve, lacking_usd)
                except CreditError:  # or another process has reserved meanwhile: then for fewer
                    if num == 1:
                        raise
            self._held_usd += num * cost_usd
        return num, num * cost_usd

    def adopt(self, held_usd: float) -> None:
        """Take over what an earlier process of the shard has held for a batch."""
        self._reserved_usd += held_usd
        self._held_usd += held_usd

    def settle(self, held_usd: float, costs_usd: Iterable[float | None]) -> None:
        """A batch has ended: what its requests cost takes the place of what was held."""
        self._held_usd -= held_usd
        for cost_usd in costs_usd:
            self.spend(cost_usd)
        self._one_ended.set()

    def close(self) -> None:
        """Put back what was reserved and neither spent nor held. Blocking."""
        used_usd = self._spent_usd + self._held_usd
        change_usd = used_usd - self._reserved_usd
        while abs(change_usd) > _ROUND_USD and not self._put(change_usd):
            self._entry = read_ledgers(self._store)[self._shard]
        self._reserved_usd = used_usd

    def _lacks(self, account: int = 0, num: int = 1) -> float:
        """What is not reserved yet of all that is spent, held and in flight, and of `num` more requests."""
        in_flight_usd = sum(item.num_in_flight * item.mean_cost_usd for item in self._accounts)
        next_usd = num * max(self._accounts[account].mean_cost_usd, _MIN_COST_USD)
        return self._spent_usd + self._held_usd + in_flight_usd + next_usd - self._reserved_usd

    def _reserve(self, lacking_usd: float) -> None:
        """Reserve whole steps that cover what lacks, by one put; all that is left of the share where it is less."""
        while True:
            left_usd = self._share.usd - self._entry.reserved_usd
            if left_usd + _ROUND_USD < lacking_usd:
                raise CreditError(
                    f"{self._store.uri_of(self._key)}: the budget is reached: ${self._entry.reserved_usd:.4f} of its "
                    f"${self._share.usd:.4f} are spent or reserved: everything is flushed; run the same command "
                    "with a larger --budget-usd to go on"
                )
            steps_usd = math.ceil((lacking_usd - _ROUND_USD) / self._share.step_usd) * self._share.step_usd
            if self._put(min(left_usd, steps_usd)):
                return
            self._entry = read_ledgers(self._store)[self._shard]

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


@dataclass(frozen=True, slots=True)
class BudgetMeter:
    """A budget, as requests of one kind see it."""

    budget: Budget
    account: int

    async def admit(self) -> None:
        """Reserve what one more request of the kind needs, as `Budget.admit`."""
        await self.budget.admit(self.account)

    def spend(self, cost_usd: float | None) -> None:
        """Count what one cost, as `Budget.spend`."""
        self.budget.spend(cost_usd, self.account)

    def withdraw(self) -> None:
        """Count one as ended, as `Budget.withdraw`."""
        self.budget.withdraw(self.account)
