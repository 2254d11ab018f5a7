"""Signals: raised, collected or passed on; handlers come back, and outside the main thread nothing is touched."""

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from nanosft.errors import Interrupted
from nanosft.signals import calling, collecting, raising


def test_sigterm_is_raised_with_what_became_of_the_work():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="half a cup is left") as caught, raising("half a cup is left"):
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_signals_are_collected_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with collecting() as caught:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert sorted(caught) == [signal.SIGINT, signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_event_loop_gets_them_between_its_callbacks():
    async def wait() -> int:
        told: asyncio.Queue[int] = asyncio.Queue()
        with calling(told.put_nowait):
            os.kill(os.getpid(), signal.SIGTERM)
            return await told.get()

    assert asyncio.run(wait()) == signal.SIGTERM


@pytest.mark.parametrize("enter", [lambda: raising(""), collecting, lambda: calling(print)])
def test_outside_the_main_thread_signals_are_left_alone(enter):
    """`run_audit` in a thread died with "signal only works in main thread"."""
    before = signal.getsignal(signal.SIGTERM)

    def work() -> bool:
        with enter():
            return signal.getsignal(signal.SIGTERM) is before

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(work).result()
