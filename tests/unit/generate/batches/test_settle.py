"""What a batch cost, shared out over its rows, and results matched with requests."""

import random

import orjson
import pytest

from nanosft.errors import DataError
from nanosft.generate.batches.api import BatchResult, BatchStatus
from nanosft.generate.batches.record import BatchRecord, RowRequest, encode_results, parse_record, parse_results
from nanosft.generate.batches.settle import TokenPrices, settle, to_answer
from nanosft.generate.records import split_cost

RECORD = BatchRecord(
    "4/00002-000007",
    "0123456789abcdef0123",
    "a/b",
    12.5,
    0.25,
    (RowRequest(2, 0, 0, 1), RowRequest(6, 1, 2, 1, ("too long",)), RowRequest(10, 0, 0, 1)),
)
DONE = BatchStatus("b1", "completed", is_ended=True, cost_usd=0.001)


def result(place: int, tokens: int = 100, cost: float | None = None) -> BatchResult:
    usage = {"prompt_tokens": 4000, "completion_tokens": tokens, **({} if cost is None else {"cost": cost})}
    body = {"choices": [{"finish_reason": "stop", "message": {"content": "{}"}}], "usage": usage}
    return BatchResult(RECORD.custom_id(RECORD.requests[place]), orjson.dumps(body).decode())


def test_shares_add_up_to_the_picodollar_whatever_the_weights():
    draw = random.Random(1)
    for _ in range(200):
        weights = [draw.randrange(10**9) for _ in range(draw.randrange(1, 50))]
        total = draw.randrange(10**13)
        shares = split_cost(total, weights)
        assert sum(shares) == total
        assert all(
            abs(share - total * weight / sum(weights)) < 1 for share, weight in zip(shares, weights, strict=True)
        )
    assert split_cost(7, [0, 0, 0]) == [3, 2, 2]
    assert split_cost(0, [1, 2]) == [0, 0]


def test_a_batchs_cost_goes_by_what_answers_state_else_by_their_tokens():
    stated = settle(RECORD, DONE, [result(0, cost=0.001), result(1, cost=0.003)], TokenPrices())
    assert [item.cost_pico for item in stated] == [250_000_000, 750_000_000, 0]
    counted = settle(RECORD, DONE, [result(0, 0), result(1, 500)], TokenPrices())
    assert [item.cost_pico for item in counted] == [333_333_333, 666_666_667, 0]


def test_a_batch_that_states_no_cost_is_counted_by_its_answers():
    status = BatchStatus("b1", "completed", is_ended=True)
    found = settle(RECORD, status, [result(0), result(1, cost=0.002)], TokenPrices(1.0, 10.0))
    assert [item.cost_pico for item in found] == [5_000_000_000, 2_000_000_000, 0]


def test_a_failed_batch_that_was_billed_is_counted_with_its_rows():
    found = settle(RECORD, BatchStatus("b1", "failed", is_ended=True, cost_usd=3e-12, error="gone"), [], TokenPrices())
    assert [(item.cost_pico, item.error) for item in found] == [(1, "gone")] * 3


def test_results_that_come_twice_count_once_and_foreign_ones_not_at_all():
    foreign = BatchResult("9-0-0-somebody", "{}")
    found = settle(RECORD, DONE, [foreign, result(1, 7), result(1, 900), result(0)], TokenPrices())
    assert [item.row for item in found] == [2, 6, 10]
    assert [to_answer(item, "a/b").usage.completion_tokens for item in found] == [100, 7, 0]
    missing = to_answer(found[2], "a/b")
    assert missing.problem is not None
    assert (missing.problem.kind, missing.problem.detail) == ("batch_no_answer", "missing")


def test_a_record_and_results_are_read_as_they_were_written():
    assert parse_record(RECORD.name, RECORD.to_bytes(), where="x") == RECORD
    assert RECORD.shard == (4, 2)
    results = settle(RECORD, DONE, [result(0)], TokenPrices())
    assert parse_results(encode_results(results), where="x") == results
    for damaged in (b"", b"[]", b'{"key": 1}'):
        with pytest.raises(DataError, match="x: not a batch's record"):
            parse_record(RECORD.name, damaged, where="x")
    with pytest.raises(DataError, match="x: not a batch's results"):
        parse_results(b"[1]\n", where="x")


def test_a_judges_batch_is_read_with_the_answers_that_it_is_about_and_an_object_without_a_kind_asks_for_rows():
    held = {"kind": "held", "fresh": 1, "held_attempt": 2, "raw": "{}"}
    request = RowRequest(6, 1, 2, 1, ("too long",), held, num_tries=1)
    record = BatchRecord("4/00002-000008", "0123456789abcdef0123", "a/judge", 12.5, 0.25, (request,), "scores")
    assert parse_record(record.name, record.to_bytes(), where="x") == record
    assert record.custom_id(request) == "6-1-2-judge1-0123456789ab"
    job = request.to_job()
    assert (job.state.waiting, job.state.num_tries) == (held, 1)
    assert RowRequest.of(job) == request
    before = b'{"key":"k","model":"a/b","created_s":1.0,"held_usd":0.0,"requests":[[2,0,0,1,["too long"]]]}'
    assert parse_record(RECORD.name, before, where="x").kind == "rows"
    for damaged in (
        before.replace(b'{"key"', b'{"kind":"scores","key"'),
        before.replace(b'{"key"', b'{"kind":[],"key"'),
    ):
        with pytest.raises(DataError, match="x: not a batch's record"):
            parse_record(RECORD.name, damaged, where="x")


def test_a_custom_id_names_row_variant_and_attempt_within_64_characters():
    assert RECORD.custom_id(RECORD.requests[1]) == "6-1-2-0123456789ab"
    longest = RowRequest(9_999_999, 99, 50, 99)
    assert len(RECORD.custom_id(longest)) <= 64
