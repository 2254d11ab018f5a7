import itertools
from dataclasses import replace
from typing import Any

import orjson
import pytest

from nanosft.errors import DataError
from nanosft.generate.provider import Answer, Usage
from nanosft.generate.records import digest_answer, held_record, judgement_record, reject_record, row_meta
from nanosft.generate.records.parts import PartBuffer, read_state
from nanosft.generate.records.row_state import RowState
from nanosft.generate.rows import iter_jobs
from nanosft.generate.writers import make_retries
from nanosft.settings.generate import GenerateSettings
from nanosft.store import Store, open_store

ANSWER = Answer("text", "text", "stop", "m", Usage(10, 8, 5, 0.25))
NUM = 6


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path))


def reject(row: int, attempt: int | None, *, prompt_variant: int = 0, given_up: bool = False) -> dict[str, Any]:
    return reject_record(
        ANSWER,
        row=row,
        cell="c",
        prompt_variant=prompt_variant,
        attempt=attempt,
        reasons=("r",),
        detail=f"because {attempt}",
        given_up=given_up,
    )


def accepted(row: int) -> bytes:
    meta = row_meta(ANSWER, row=row, cell="c", prompt_variant=0, attempt=0, source="generate")
    return orjson.dumps({"id": "x", "messages": [], "meta": meta}) + b"\n"


def flush(
    store: Store, *, rows: tuple[int, ...] = (), rejects: tuple[dict[str, Any], ...] = (), attempt: str = "a"
) -> None:
    buffer = PartBuffer(0, attempt)
    for row in rows:
        buffer.add_row(accepted(row))
    for record in rejects:
        buffer.add_reject(record)
    part = buffer.take()
    assert part is not None
    buffer.put(store, part)


def test_what_was_flushed_is_read_back(store):
    flush(store, rows=(0, 3), rejects=(reject(1, 0), reject(1, None), reject(2, 0, given_up=True)))
    state = read_state(store, range(NUM), NUM)
    assert bytes(state.accepted) == b"\x01\x00\x00\x01\x00\x00"
    assert bytes(state.given_up) == b"\x00\x00\x01\x00\x00\x00"
    assert state.count(range(NUM)) == (2, 1)
    assert state.rows[1] == RowState(0, 1, ["because 0"])  # what the client retried by itself is no attempt of the row
    assert state.tally.cost_usd == pytest.approx(5 * 0.25)
    assert state.pico_by_attempt == {"a": 1_250_000_000_000}
    assert [item.num_rows for item in state.objects.values()] == [2]


def test_a_shards_counts_are_of_its_own_rows(store):
    flush(store, rows=(0, 1, 2), rejects=(reject(3, 0),))
    state = read_state(store, range(1, NUM, 2), NUM)
    assert (state.tally.num_accepted, state.tally.rejects) == (1, {"r": 1})
    assert state.count(range(NUM)) == (3, 0)


def test_a_row_goes_on_with_the_prompt_and_the_attempts_it_had(store):
    flush(store, rejects=(reject(0, 0), reject(0, 1), reject(0, 0, prompt_variant=1), reject(4, 0, given_up=True)))
    state = read_state(store, range(NUM), NUM)
    retries = make_retries(GenerateSettings(out="x", max_attempts=2))
    jobs = {job.row: job for job in iter_jobs(state, range(NUM), retries, retry_rejects=False)}
    assert sorted(jobs) == [0, 1, 2, 3, 5]
    assert (jobs[0].state, jobs[0].last_variant) == (RowState(1, 1, ["because 0"]), 1)
    assert (jobs[1].state, jobs[1].last_variant) == (RowState(), 1)
    retried = {job.row: job for job in iter_jobs(state, range(NUM), retries, retry_rejects=True)}
    assert (retried[4].state, retried[4].last_variant) == (RowState(1), 2)


def test_rows_with_an_answer_that_is_held_come_first(store):
    held = held_record(ANSWER, row=4, cell="c", prompt_variant=0, attempt=0)
    flush(store, rejects=(reject(0, 0), held, reject(5, 0)))
    retries = make_retries(GenerateSettings(out="x"))
    jobs = iter_jobs(read_state(store, range(NUM), NUM), range(NUM), retries, retry_rejects=False)
    assert [job.row for job in jobs] == [4, 0, 1, 2, 3, 5]


def test_a_buffer_numbers_its_parts_and_gives_none_when_it_is_empty(store):
    buffer = PartBuffer(7, "b")
    assert buffer.take() is None
    for row in range(2):
        buffer.add_row(accepted(row))
        part = buffer.take()
        assert part is not None
        assert buffer.put(store, part) is not None
    assert [info.key for info in store.list()] == ["rows/00007-b-00000.jsonl", "rows/00007-b-00001.jsonl"]


REJECT = b'{"row": 6, "fresh": 0, "attempt": 0, "reason": "r", "detail": "d", "given_up": false}\n'


@pytest.mark.parametrize(
    ("key", "data", "message"),
    [
        ("rows/notes.txt", b"", "not a part's name"),
        ("rows/00000-a-00000.jsonl", b"{", r"00000-a-00000\.jsonl:line 1: not JSON"),
        ("rows/00000-a-00000.jsonl", b'{"messages": []}\n', "line 1: not a line of a generated part"),
        ("rejects/00000-a-00000.jsonl", REJECT, "line 1: row 6 is not in a plan of 6 rows"),
    ],
)
def test_what_nanosft_did_not_write_is_named(store, key, data, message):
    store.write(key, data)
    with pytest.raises(DataError, match=message):
        read_state(store, range(NUM), NUM)


def test_of_answers_that_are_held_the_latest_attempts_waits_whatever_the_order_of_the_parts():
    held: list[dict[str, Any]] = [
        {"kind": "held", "fresh": 0, "held_attempt": attempt, "attempt": None, "raw": "text"} for attempt in (0, 1)
    ]
    rejected: dict[str, Any] = {"fresh": 0, "attempt": 0, "detail": "too long"}
    unread: dict[str, Any] = {"kind": "judgement", "fresh": 0, "attempt": None, "tried_attempt": 1}
    for records in itertools.permutations([*held, rejected, unread]):
        state = RowState()
        for record in records:
            state.add_record(record)
        assert (state.waiting, state.num_tries) == (held[1], 1)


def test_tries_of_the_judge_count_for_the_answer_that_they_were_about():
    """Two processes had got two answers for one attempt, and the second was kept unscored for tries at the first."""
    state = RowState()
    for raw in ("one", "two"):
        held = held_record(replace(ANSWER, raw=raw), row=0, cell="c", prompt_variant=0, attempt=0)
        tried = judgement_record(ANSWER, row=0, cell="c", prompt_variant=0, tried=(0, digest_answer("two")))
        state.add_record(held)
        state.add_record(tried)
    assert state.waiting is not None
    assert (state.waiting["raw"], state.num_tries, state.count_tries("two")) == ("one", 0, 2)


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_a_score_that_two_processes_have_taken_differently_is_stated_once(store, names):
    """One has the row with its score; in the other it repeats another row, and the score is put down as of no use."""
    place: dict[str, Any] = {"row": 0, "cell": "c", "prompt_variant": 0}
    meta = row_meta(ANSWER.with_cost(0.0), **place, attempt=0, source="generate")
    scores = {"model": "j", "scores": {"natural": 5}, "reason": "so", "cost_usd": 0.25, "tokens": {}}
    line = {"id": "x", "messages": [], "meta": {**meta, "judge": scores, "batch": "1/00000-000001"}}
    useless = judgement_record(ANSWER, **place, why=("of_rejected", "near"))
    refused = reject_record(ANSWER.with_cost(0.0), **place, attempt=0, reasons=("near_duplicate",), detail="near")
    others = [{**record, "batch": "1/00000-000001"} for record in (useless, refused, reject(1, 0))]
    with_row, without = PartBuffer(0, names[0]), PartBuffer(0, names[1])
    with_row.add_row(orjson.dumps(line) + b"\n")
    for record in others:
        without.add_reject(record)
    for buffer in (with_row, without):
        part = buffer.take()
        assert part is not None
        buffer.put(store, part)
    state = read_state(store, range(NUM), NUM)
    tally = state.tally
    assert (tally.judge.cost_usd, tally.num_accepted, tally.rejects) == (0.25, 1, {"r": 1})
    assert (tally.cost_usd, state.rows[1].num_rejected) == (0.25 + 0.25, 1)


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_of_a_batch_that_two_processes_have_refused_differently_one_ones_records_count(store, names):
    place: dict[str, Any] = {"row": 0, "cell": "c", "prompt_variant": 0}
    free = ANSWER.with_cost(0.0)
    useless = judgement_record(ANSWER, **place, why=("of_rejected", "near"))
    near = reject_record(free, **place, attempt=0, reasons=("near_duplicate",), detail="near")
    low = reject_record(free, **place, attempt=0, reasons=("judge/low_score",), detail="low")
    low["judge"] = {"model": "j", "scores": {"natural": 1}, "reason": "so", "cost_usd": 0.25, "tokens": {}}
    for name, records in zip(names, ((useless, near), (low,)), strict=True):
        flush(store, rejects=tuple({**record, "batch": "1/00000-000001"} for record in records), attempt=name)
    state = read_state(store, range(NUM), NUM)
    assert (state.tally.cost_usd, state.tally.rejects.total(), state.rows[0].num_rejected) == (0.25, 1, 1)
