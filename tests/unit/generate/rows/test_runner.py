"""The end of a run: what is flushed, and when, with a store that fails."""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from nanosft.errors import StoreError
from nanosft.generate.provider.limits import AdaptiveLimit
from nanosft.generate.records.parts import PartBuffer, PlanState, RowState
from nanosft.generate.records.totals import Tally
from nanosft.generate.rows.runner import Job, Made, Runner, Timing
from nanosft.progress import Bar
from nanosft.store import Store, open_store
from nanosft.store.base import Written

NUM = 6


class FailingStore:
    """A store whose first writes fail."""

    def __init__(self, store: Store, errors: list[Exception]) -> None:
        self._store = store
        self._errors = errors

    def write(self, key: str, data: bytes) -> Written:
        if self._errors:
            raise self._errors.pop(0)
        return self._store.write(key, data)


def run_rows(store: Any, make: Callable[[PartBuffer, int], Any]) -> tuple[Made | None, Runner]:
    """Run `NUM` rows that `make` adds to the buffer, flushed one by one."""
    buffer = PartBuffer(0, "a")

    async def make_row(row: int, _state: RowState, _last_fresh: int) -> bool:
        await make(buffer, row)
        return True

    async def scenario() -> tuple[Made, Runner]:
        maker: Any = SimpleNamespace(
            make=make_row,
            buffer=buffer,
            limit=AdaptiveLimit(8),
            tally=Tally(),
            refusals=Counter(),
            is_stopping=False,
            row_timeout_s=1.0,
        )
        state = PlanState(bytearray(NUM), bytearray(NUM))
        with Bar("generate", NUM, quiet=True) as bar:
            runner = Runner(maker, store, Timing(1, 60.0, 5.0), bar, state)
            runners.append(runner)
            return await runner.run(Job(row, RowState(), 0) for row in range(NUM)), runner

    runners: list[Runner] = []
    try:
        return asyncio.run(scenario())
    except StoreError:
        return None, runners[0]


async def add_row(buffer: PartBuffer, row: int) -> None:
    await asyncio.sleep(0.02 * row)
    buffer.add_row(b'{"row": %d}\n' % row)


def flushed_lines(store: Store) -> list[bytes]:
    return sorted(line for info in store.list("rows/") for line in store.read(info.key).splitlines())


@pytest.mark.parametrize("num_failures", [1, 2])
def test_no_part_is_lost_while_the_store_fails_for_a_while(tmp_path, num_failures):
    """While one part waited to be put again, the next one had been taken and dropped."""
    store = open_store(str(tmp_path))
    errors: list[Exception] = [StoreError("full")] * num_failures
    made, runner = run_rows(FailingStore(store, errors), add_row)
    assert made is None  # the run ends by the store's error
    assert len(flushed_lines(store)) == runner.num_made > 0
    assert sum(item.num_rows or 0 for item in runner.state.objects.values()) == runner.num_made


def test_an_unexpected_error_of_a_flush_ends_the_run(tmp_path):
    """The task that flushes had died of it in silence, and the run went on without."""
    with pytest.raises(MemoryError):
        run_rows(FailingStore(open_store(str(tmp_path)), [MemoryError()]), add_row)


def test_a_signal_does_not_hide_that_the_store_lost_rows(tmp_path):
    """Exit code 143 says that everything is saved."""

    async def add_and_signal(buffer: PartBuffer, row: int) -> None:
        await add_row(buffer, row)
        signal.raise_signal(signal.SIGTERM)

    errors: list[Exception] = [StoreError("full")] * 9
    made, runner = run_rows(FailingStore(open_store(str(tmp_path)), errors), add_and_signal)
    assert made is None
    assert runner.state.objects == {}


def test_every_part_that_was_put_is_known_at_the_end(tmp_path):
    store = open_store(str(tmp_path))
    made, runner = run_rows(FailingStore(store, []), add_row)
    assert made is not None
    assert made.num_rows == NUM
    assert set(runner.state.objects) == {info.key for info in store.list("rows/")}
