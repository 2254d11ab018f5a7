"""The end of a run: what is flushed, and when, with a store that fails."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from nanosft.conversation import Conversation, Message
from nanosft.errors import Interrupted, ProviderError, StoreError
from nanosft.generate.provider import AdaptiveLimit
from nanosft.generate.records import PartBuffer, PlanState, RowState
from nanosft.generate.rows import Job
from nanosft.generate.rows.row import OnReject, OpenSlot
from nanosft.generate.rows.runner import Runner, ShardResult, Timing
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


def run_rows(
    store: Any,
    make_row: Callable[[Job, OpenSlot, OnReject], Awaitable[Conversation | None]],
    *,
    num_slots: int = 8,
    stop_grace_s: float = 5.0,
    on_signal: Callable[[], None] = lambda: None,
) -> tuple[ShardResult | Exception, Runner]:
    """Run `NUM` rows, flushed one by one; what the run returned or raised."""

    async def scenario() -> tuple[ShardResult | Exception, Runner]:
        state = PlanState(bytearray(NUM), bytearray(NUM))
        with Bar("generate", NUM, quiet=True) as bar:
            timing = Timing(1, 60.0, stop_grace_s)
            runner = Runner(make_row, store, PartBuffer(0, "a"), AdaptiveLimit(num_slots), timing, bar, state)
            runner.on_signal = on_signal
            try:
                return await runner.run(Job(row, RowState(), 0) for row in range(NUM)), runner
            except (StoreError, ProviderError, Interrupted) as exc:
                return exc, runner

    return asyncio.run(scenario())


async def make_row(job: Job, _open_slot: OpenSlot, _on_reject: OnReject) -> Conversation:
    await asyncio.sleep(0.02 * job.row)
    return Conversation((Message("user", "a"), Message("assistant", "b")), {"row": job.row})


def flushed_lines(store: Store) -> list[bytes]:
    return sorted(line for info in store.list("rows/") for line in store.read(info.key).splitlines())


@pytest.mark.parametrize("num_failures", [1, 2])
def test_no_part_is_lost_while_the_store_fails_for_a_while(tmp_path, num_failures):
    """While one part waited to be put again, the next one had been taken and dropped."""
    store = open_store(str(tmp_path))
    errors: list[Exception] = [StoreError("full")] * num_failures
    result, runner = run_rows(FailingStore(store, errors), make_row)
    assert isinstance(result, StoreError)
    assert len(flushed_lines(store)) == runner.num_made > 0
    assert sum(item.num_rows or 0 for item in runner.state.objects.values()) == runner.num_made


def test_an_unexpected_error_of_a_flush_ends_the_run(tmp_path):
    """The task that flushes had died of it in silence, and the run went on without."""
    with pytest.raises(MemoryError):
        run_rows(FailingStore(open_store(str(tmp_path)), [MemoryError()]), make_row)


def test_a_signal_does_not_hide_that_the_store_lost_rows(tmp_path, monkeypatch):
    """Exit code 143 says that everything is saved."""

    async def make_and_signal(job: Job, open_slot: OpenSlot, on_reject: OnReject) -> Conversation:
        conversation = await make_row(job, open_slot, on_reject)
        signal.raise_signal(signal.SIGTERM)
        return conversation

    errors: list[Exception] = [StoreError("full")] * 99
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    failing = FailingStore(open_store(str(tmp_path)), errors)
    result, runner = run_rows(failing, make_and_signal, stop_grace_s=0.2)
    assert isinstance(result, StoreError)
    assert runner.state.objects == {}
    (rescued,) = tmp_path.glob("nanosft-rescue-*")
    assert f"what is not saved lies in {rescued.as_uri()}: copy its folders into --out" in str(result)
    assert len(flushed_lines(open_store(str(rescued)))) == runner.num_made > 0


def test_a_signal_frees_rows_that_wait_for_something_else_than_an_answer(tmp_path):
    """They used up the grace."""
    freed = asyncio.Event()

    async def wait_and_signal(job: Job, open_slot: OpenSlot, on_reject: OnReject) -> Conversation:
        if job.row == 0:
            signal.raise_signal(signal.SIGTERM)
        await freed.wait()
        return await make_row(job, open_slot, on_reject)

    store = open_store(str(tmp_path))
    result, runner = run_rows(store, wait_and_signal, stop_grace_s=60.0, on_signal=freed.set)
    assert isinstance(result, Interrupted)
    assert len(flushed_lines(store)) == runner.num_made > 0


def test_the_last_flush_keeps_trying_within_the_grace(tmp_path, monkeypatch):
    """It had one try: five answers that were paid for were in no part."""
    monkeypatch.setattr("nanosft.generate.rows.runner._FLUSH_AGAIN_S", 0.01)
    store = open_store(str(tmp_path))
    errors: list[Exception] = [StoreError("full")] * 40
    result, runner = run_rows(FailingStore(store, errors), make_row)
    assert isinstance(result, StoreError)
    assert not errors
    assert len(flushed_lines(store)) == runner.num_made > 0


def test_every_part_that_was_put_is_known_at_the_end(tmp_path):
    store = open_store(str(tmp_path))
    result, runner = run_rows(FailingStore(store, []), make_row)
    assert isinstance(result, ShardResult)
    assert result.num_rows == NUM
    assert set(runner.state.objects) == {info.key for info in store.list("rows/")}


def test_rejects_are_flushed_and_counted_although_their_row_never_ends_well(tmp_path):
    """What was paid for is recorded as it comes: the row may end by an error."""
    store = open_store(str(tmp_path))

    async def reject(job: Job, _open_slot: OpenSlot, on_reject: OnReject) -> None:
        on_reject({"row": job.row, "reason": "json_invalid", "cost_usd": 0.5})
        raise ProviderError("down")

    result, runner = run_rows(store, reject)
    assert str(result).startswith(f"{NUM} rows got no answer (down)")
    assert runner.state.tally.rejects == {"json_invalid": 2 * NUM}  # each row was tried once more
    lines = [orjson.loads(line) for info in store.list("rejects/") for line in store.read(info.key).splitlines()]
    assert sorted(line["row"] for line in lines) == sorted([*range(NUM)] * 2)


def test_a_row_that_is_given_up_is_marked_and_makes_no_line(tmp_path):
    async def give_up(_job: Job, _open_slot: OpenSlot, _on_reject: OnReject) -> None:
        return None

    store = open_store(str(tmp_path))
    result, runner = run_rows(store, give_up)
    assert isinstance(result, ShardResult)
    assert result.num_rows == 0
    assert runner.state.count(range(NUM)) == (0, NUM)
    assert not list(store.list())


def test_a_run_that_stops_gives_out_no_more_slots_and_waits_for_requests_in_flight(tmp_path):
    num_sent = 0

    async def ask(job: Job, open_slot: OpenSlot, on_reject: OnReject) -> Conversation:
        nonlocal num_sent
        async with open_slot():
            num_sent += 1
            if job.row == 0:
                signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
        return await make_row(job, open_slot, on_reject)

    store = open_store(str(tmp_path))
    result, runner = run_rows(store, ask, num_slots=2)
    assert isinstance(result, Interrupted)
    assert num_sent == len(flushed_lines(store)) == runner.num_made == 2


def test_requests_in_flight_get_the_grace_time_and_no_more(tmp_path):
    async def hang(_job: Job, open_slot: OpenSlot, _on_reject: OnReject) -> None:
        async with open_slot():
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(60)

    started_s = time.monotonic()
    result, _ = run_rows(open_store(str(tmp_path)), hang, stop_grace_s=0.1)
    assert isinstance(result, Interrupted)
    assert time.monotonic() - started_s < 30
