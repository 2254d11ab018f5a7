"""How much may be asked at once and per minute.

`AdaptiveLimit` is additive increase, multiplicative decrease (Chiu and Jain, 1989): each window of as many successes
as requests are allowed adds `ceiling / 8`; an overload (HTTP 429, a time-out) takes a quarter away, once per window,
since one overload is told by all the requests that were in flight with it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

_DECREASE: Final = 0.75
_STEPS_TO_CEILING: Final = 8
_BURST_S: Final = 1.0


class AdaptiveLimit:
    """How many requests may be in flight: `ceiling` at first, less when the provider is overloaded.

    Args:
        ceiling: Most requests in flight, ever.
    """

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.num_in_flight = 0
        self._limit = float(ceiling)
        self._num_successes = 0  # since the limit changed last
        self._generation = 0  # of the limit: overloads of requests begun under an older one are not counted twice
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """Requests that may be in flight now, at least 1."""
        return max(1, int(self._limit))

    @property
    def generation(self) -> int:
        """To be passed to `record_overload` by a request that begins now."""
        return self._generation

    async def acquire(self) -> None:
        """Wait for a place. Whoever has waited longest gets it first."""
        if self.num_in_flight < self.limit and not self._waiters:
            self.num_in_flight += 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            else:  # the place had been given already: hand it on
                self.release()
            raise

    def release(self) -> None:
        """Give a place back."""
        self.num_in_flight -= 1
        self._wake()

    def record_success(self) -> None:
        """An answer came: after a whole window of them the limit grows."""
        self._num_successes += 1
        if self._num_successes >= self._limit and self._limit < self.ceiling:
            self._num_successes = 0
            self._limit = min(self.ceiling, self._limit + max(1.0, self.ceiling / _STEPS_TO_CEILING))
            self._wake()

    def record_overload(self, generation: int) -> None:
        """A request begun at `generation` met a 429 or a time-out: the limit falls, once per window."""
        if generation == self._generation:
            self._generation += 1
            self._num_successes = 0
            self._limit = max(1.0, self._limit * _DECREASE)

    def _wake(self) -> None:
        while self._waiters and self.num_in_flight < self.limit:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self.num_in_flight += 1
                waiter.set_result(None)


class RateLimit:
    """A token bucket: `per_minute` units a minute, at most one second's worth (or one unit) at once.

    Args:
        per_minute: Units a minute: requests, or tokens.
        clock: Seconds that never go back.
    """

    def __init__(self, per_minute: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_minute / 60.0
        self._capacity = max(1.0, self._per_s * _BURST_S)
        self._level = self._capacity
        self._clock = clock
        self._filled_s = clock()

    def reserve(self, units: float = 1.0) -> float:
        """Take `units` now and tell how many seconds to wait before using them; debts are paid by later callers."""
        now_s = self._clock()
        self._level = min(self._capacity, self._level + (now_s - self._filled_s) * self._per_s)
        self._filled_s = now_s
        self._level -= units
        return max(0.0, -self._level / self._per_s)

    def give_back(self, units: float) -> None:
        """Correct an estimate: negative when more was used than reserved."""
        self._level = min(self._capacity, self._level + units)

    async def acquire(self, units: float = 1.0) -> None:
        """Wait until `units` may be used."""
        wait_s = self.reserve(units)
        if wait_s > 0:
            await asyncio.sleep(wait_s)
