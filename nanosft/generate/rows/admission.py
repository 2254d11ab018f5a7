"""Admission of requests that may be billed: none is sent before what it may cost is reserved.

Whatever may be billed is admitted before it is sent: each request of a row, those that the client sends again among
them. An answer that never came counts with the mean of those that did; until one has come, with the estimate. Requests
in flight are reserved for as dearly: where they leave nothing for one more, it waits until one of them has ended, and
only where none is in flight the budget is reached.

`Budget` reserves in the store, for all processes of a plan; `Cap` holds one process to a sum.
"""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

from nanosft.errors import CreditError

ROUND_USD: Final = 1e-9
MIN_COST_USD: Final = 1e-6
"""A request is taken to cost at least this, so that none is admitted without a reservation."""
_UNPRICED_SHARE: Final = 0.01


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
        """What one is taken to cost."""
        return self.known_usd / self.num_billed if self.num_billed else self.first_cost_usd

    @property
    def spent_usd(self) -> float:
        """Known costs, and the mean for each that nobody knows."""
        return self.known_usd + self.num_unknown * self.mean_cost_usd


class Admission(ABC):
    """Admits requests under a budget, as a `Meter`. Used from one event loop.

    It counts the requests of one kind; `meter` counts those of another apart, under the same budget.

    Args:
        first_cost_usd: What an answer is taken to cost until one has come; 0: nobody knows.
        unpriced_usd: What it is taken to cost then.
    """

    def __init__(self, first_cost_usd: float, *, unpriced_usd: float) -> None:
        self._unpriced_usd = unpriced_usd
        self._reserved_usd = 0.0  # by this process
        self._held_usd = 0.0  # of it, for what is with the provider and not in flight
        self._accounts = [_Account(first_cost_usd or unpriced_usd)]
        self._lock = asyncio.Lock()
        self._one_ended = asyncio.Event()

    @property
    def spent_usd(self) -> float:
        """What is taken to be spent on requests that have ended."""
        return sum(account.spent_usd for account in self._accounts)

    @property
    def _is_any_in_flight(self) -> bool:
        return any(account.num_in_flight for account in self._accounts)

    def meter(self, mean_cost_usd: float) -> "KindMeter":
        """The same budget, for requests that cost otherwise, such as a judge's.

        Args:
            mean_cost_usd: What an answer is taken to cost until one has come; 0: nobody knows.
        """
        self._accounts.append(_Account(mean_cost_usd or self._unpriced_usd))
        return KindMeter(self, len(self._accounts) - 1)

    async def admit(self, account: int = 0) -> None:
        """Reserve what one more request needs; it counts as in flight until `withdraw`.

        Raises:
            CreditError: The budget is used up.
        """
        if self._lacks(account) > ROUND_USD:
            async with self._lock:
                while (lacking_usd := self._lacks(account)) > ROUND_USD:
                    self._one_ended.clear()
                    try:
                        await self._reserve(lacking_usd)
                    except CreditError:
                        if not self._is_any_in_flight and not self._one_ended.is_set():
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
        self._end_one()

    def _lacks(self, account: int = 0, num: int = 1) -> float:
        """What is not reserved yet of all that is spent, held and in flight, and of `num` more requests."""
        in_flight_usd = sum(item.num_in_flight * item.mean_cost_usd for item in self._accounts)
        next_usd = num * max(self._accounts[account].mean_cost_usd, MIN_COST_USD)
        return self.spent_usd + self._held_usd + in_flight_usd + next_usd - self._reserved_usd

    @abstractmethod
    async def _reserve(self, lacking_usd: float) -> None:
        """Reserve at least so much more.

        Raises:
            CreditError: The budget leaves less.
        """

    def _end_one(self) -> None:
        """Wake those that wait for the end of another."""
        self._one_ended.set()


class Cap(Admission):
    """A sum that one process keeps to, with what earlier ones have spent of it. Used from one event loop.

    As long as nobody knows what an answer costs, one request is in flight at a time.

    Args:
        budget_usd: The sum.
        first_cost_usd: What an answer is taken to cost until one has come; 0: nobody knows.
        spent_usd: Known costs of earlier requests.
        num_billed: Those that cost anything.
        num_unknown: Those whose cost nobody knows.
    """

    def __init__(
        self,
        budget_usd: float,
        *,
        first_cost_usd: float = 0.0,
        spent_usd: float = 0.0,
        num_billed: int = 0,
        num_unknown: int = 0,
    ) -> None:
        super().__init__(first_cost_usd, unpriced_usd=_UNPRICED_SHARE * budget_usd)
        self._budget_usd = budget_usd
        account = self._accounts[0]
        account.known_usd, account.num_billed, account.num_unknown = spent_usd, num_billed, num_unknown
        self._knows_no_cost = num_billed == 0

    def spend(self, cost_usd: float | None, account: int = 0) -> None:
        """As `Admission.spend`."""
        self._knows_no_cost &= cost_usd is None
        super().spend(cost_usd, account)

    async def _reserve(self, lacking_usd: float) -> None:
        is_too_much = self._reserved_usd + lacking_usd > self._budget_usd + ROUND_USD
        if is_too_much or (self._knows_no_cost and self._is_any_in_flight):
            raise CreditError(f"the budget of ${self._budget_usd:g} is reached")
        self._reserved_usd += lacking_usd


@dataclass(frozen=True, slots=True)
class KindMeter:
    """A budget, as requests of one kind see it."""

    budget: Admission
    account: int

    async def admit(self) -> None:
        """Reserve what one more request of the kind needs, as `Admission.admit`."""
        await self.budget.admit(self.account)

    def spend(self, cost_usd: float | None) -> None:
        """Count what one cost, as `Admission.spend`."""
        self.budget.spend(cost_usd, self.account)

    def withdraw(self) -> None:
        """Count one as ended, as `Admission.withdraw`."""
        self.budget.withdraw(self.account)
