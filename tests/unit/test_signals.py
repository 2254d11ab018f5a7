"""Signals: raised, collected or passed on; handlers come back, and outside the main thread nothing is touched."""

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import pytest

from nanosft.errors import Interrupted
from nanosft.signals import calling, collecting, raising, saving


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
        with calling(asyncio.get_running_loop(), told.put_nowait):
            os.kill(os.getpid(), signal.SIGTERM)
            return await told.get()

    assert asyncio.run(wait()) == signal.SIGTERM


@contextmanager
def calling_by_a_loop():
    with closing(asyncio.new_event_loop()) as loop, calling(loop, print):
        yield


def test_after_an_event_loop_the_command_lines_own_way_is_back():
    """asyncio leaves SIG_DFL behind, so that SIGTERM while generate puts its manifest had neither line nor code."""

    async def work() -> None:
        with calling(asyncio.get_running_loop(), print):
            pass

    def run() -> None:
        with raising("half a cup is left"):
            asyncio.run(work())
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="half a cup"):
        run()


def test_a_signal_that_comes_after_an_event_loops_last_look_is_not_lost():
    """It lay in the loop's pipe, and the run went on to its manifest as if nobody had asked it to end."""
    told: list[int] = []

    async def work() -> None:
        with calling(asyncio.get_running_loop(), told.append):
            os.kill(os.getpid(), signal.SIGTERM)

    asyncio.run(work())
    assert told == [signal.SIGTERM]


def test_sigterm_waits_until_what_was_paid_for_is_saved():
    saved = []

    def save() -> None:
        with raising(""), saving():
            os.kill(os.getpid(), signal.SIGTERM)
            saved.append("a judgement")

    with pytest.raises(Interrupted):
        save()
    assert saved


def test_sigterm_is_no_error_of_the_work_that_it_comes_in():
    """A file that was being loaded was called damaged, with the code of what no other try mends."""
    with pytest.raises(Interrupted), raising(""), suppress(Exception):
        os.kill(os.getpid(), signal.SIGTERM)


def test_collecting_can_end_the_work_while_there_is_nothing_to_save():
    def run() -> None:
        with collecting() as caught:
            caught.ends = True
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        run()


@pytest.mark.parametrize("enter", [lambda: raising(""), collecting, calling_by_a_loop])
def test_outside_the_main_thread_signals_are_left_alone(enter):
    """`run_audit` in a thread died with "signal only works in main thread"."""
    before = signal.getsignal(signal.SIGTERM)

    def work() -> bool:
        with enter():
            return signal.getsignal(signal.SIGTERM) is before

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(work).result()
