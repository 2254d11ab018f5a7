import asyncio

import pytest

from nanosft.generate.provider.limits import AdaptiveLimit, RateLimit


def test_the_limit_falls_once_per_window_of_requests_in_flight():
    limit = AdaptiveLimit(64)
    begun = limit.generation
    for _ in range(10):
        limit.record_overload(begun)
    assert (limit.limit, limit.generation) == (48, begun + 1)
    limit.record_overload(limit.generation)
    assert limit.limit == 36


def test_the_limit_grows_by_a_step_after_a_whole_window_and_never_beyond_its_ceiling():
    limit = AdaptiveLimit(64)
    limit.record_overload(limit.generation)
    for _ in range(47):
        limit.record_success()
    assert limit.limit == 48
    limit.record_success()
    assert limit.limit == 56
    for _ in range(1000):
        limit.record_success()
    assert limit.limit == 64


def test_the_limit_never_falls_below_one():
    limit = AdaptiveLimit(2)
    for _ in range(20):
        limit.record_overload(limit.generation)
    assert limit.limit == 1


def test_places_are_given_in_order_and_a_cancelled_waiter_loses_none():
    async def scenario() -> list[int]:
        limit = AdaptiveLimit(1)
        order: list[int] = []

        async def worker(number: int) -> None:
            await limit.acquire()
            order.append(number)
            await asyncio.sleep(0)
            limit.release()

        await limit.acquire()
        tasks = [asyncio.create_task(worker(number)) for number in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        limit.release()
        tasks[0].cancel()  # its place had been given to it already
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limit.num_in_flight == 0
        return order

    assert asyncio.run(scenario()) == [2, 3]


def test_the_rate_holds_over_a_minute_and_debts_are_paid_by_later_callers():
    now_s = 0.0
    rate = RateLimit(60, clock=lambda: now_s)
    sent = 0
    while now_s < 60:
        now_s += rate.reserve()
        sent += 1
    assert sent == pytest.approx(61, abs=1)
    assert rate.reserve(30) == pytest.approx(30, abs=1)
    rate.give_back(29)
    assert rate.reserve() == pytest.approx(2, abs=1.01)
