import asyncio
import time

import pytest

from tests.chaos.clock import simulated_time


def test_hours_pass_at_once_and_in_order() -> None:
    told: list[str] = []

    async def tell(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        told.append(name)

    async def run() -> None:
        await asyncio.gather(tell("late", 7200.0), tell("early", 3600.0))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60.0):
                await tell("never", 61.0)

    real_s = time.perf_counter()
    with simulated_time() as clock:
        asyncio.run(run())
        assert 7260.0 <= clock.now_s < 7261.0
        assert time.monotonic() >= 7260.0
    assert told == ["early", "late"]
    assert time.perf_counter() - real_s < 60.0


def test_what_is_given_to_a_thread_is_done_by_the_loop_in_the_same_order_each_time() -> None:
    async def run() -> list[int]:
        done: list[int] = []
        await asyncio.gather(*(asyncio.to_thread(done.append, number) for number in range(9)))
        return done

    with simulated_time():
        first, again = asyncio.run(run()), asyncio.run(run())
    assert sorted(first) == list(range(9))
    assert again == first


def test_a_wait_for_what_will_never_be_is_told() -> None:
    async def run() -> None:
        await asyncio.Event().wait()

    with simulated_time(), pytest.raises(RuntimeError, match="what will never be"):
        asyncio.run(run())
