"""A judge in batches, through the stage: scores, refusals, money, and what the next process finds."""

import contextlib
from typing import Any

import pytest

from nanosft.data import read_conversations, read_manifest
from nanosft.errors import BatchesPendingError, CreditError
from nanosft.generate import provider
from nanosft.generate.stage import run_generate
from nanosft.quality.scores import is_drawn
from nanosft.settings.generate import GenerateSettings
from nanosft.store import open_store
from tests.batching import MANY_FAULTS, cost_pico, lines_of, manifest_of, rows_of, settings
from tests.chaos.explore import explore
from tests.chaos.stages import STAGES
from tests.stub_batches import PICO, Batch, BatchStub, Faults
from tests.stub_provider import PRICE_USD

NUM = 24


def judged(out: str, **changes: Any) -> GenerateSettings:
    values = {"judge_model": "judge", "min_score": 3, "num": NUM, "batch_size": 10, "batch_rest": 0}
    return settings(out, **(values | changes))


def is_of_scores(batch: Batch) -> bool:
    return "-judge" in batch.requests[0][0]


def sizes_of(stub: BatchStub) -> tuple[list[int], list[int]]:
    """Requests of each batch of rows, and of scores."""
    batches = list(stub.batches.values())
    return (
        [len(batch.requests) for batch in batches if not is_of_scores(batch)],
        [len(batch.requests) for batch in batches if is_of_scores(batch)],
    )


def judge_pico(stub: BatchStub) -> int:
    """What the service billed for scores."""
    return sum(batch.cost_pico for batch in stub.batches.values() if is_of_scores(batch))


def stated_judge_pico(out: str) -> int:
    return round(float(manifest_of(out).counts["judge"]["cost_usd"]) * PICO)


def test_what_came_in_batches_is_scored_in_batches_and_its_cost_stands_apart(out, use):
    stub = use(BatchStub(NUM))
    counts = run_generate(judged(out)).counts
    assert sizes_of(stub) == ([10, 10, 4], [10, 10, 4])
    assert stub.num_alone == 0
    assert counts["judge"]["rows"] == {"scored": NUM, "unscored": 0, "refused": 0}
    metas = [row.meta for row in read_conversations(out)]
    assert {meta["judge"]["scores"]["faithful"] for meta in metas} == {5}
    assert (cost_pico(out), stated_judge_pico(out)) == (stub.billed_pico, judge_pico(stub))
    assert not [line for line in lines_of(out, "rejects/") if line.get("kind") != "held"]


def test_a_low_score_goes_into_the_next_batch_of_rows_with_the_judges_reason(out, use):
    stub = use(BatchStub(NUM, form="openai", faults=Faults(low_score=0.3), states_costs=True))
    counts = run_generate(judged(out, openrouter_fields=False)).counts
    assert rows_of(out) == list(range(NUM))
    assert counts["judge"]["rows"] == {"scored": NUM, "unscored": 0, "refused": stub.num_low_scores}
    assert stub.num_low_scores > 0
    again = [
        fields
        for batch in stub.batches.values()
        for name, fields in batch.requests
        if not is_of_scores(batch) and name.split("-")[2] == "1"
    ]
    assert again
    assert all("a judge gave it faithful 2 of 5: it stretches a fact" in str(item["messages"][-1]) for item in again)
    assert max(stub.answered.values()) == 1
    assert (cost_pico(out), stated_judge_pico(out)) == (stub.billed_pico, judge_pico(stub))
    refused = {(line["row"], line["attempt"]) for line in lines_of(out, "rejects/") if "kind" not in line}
    held = [line for line in lines_of(out, "rejects/") if line.get("kind") == "held"]
    refused_pico = sum(
        round(line["cost_usd"] * PICO) for line in held if (line["row"], line["held_attempt"]) in refused
    )
    stated = counts["cost"]["rejects_usd"]
    assert refused_pico > 0
    assert {name: round(usd * PICO) for name, usd in stated.items()} == {"judge/low_score": refused_pico}


def test_whatever_fails_every_row_is_scored_once_and_every_cent_is_counted(out, use):
    stub = use(BatchStub(50, faults=Faults(**MANY_FAULTS, low_score=0.1)))
    counts = run_generate(judged(out, num=50, batch_rest=2)).counts
    assert rows_of(out) == list(range(50))
    rows = counts["judge"]["rows"]
    assert rows["scored"] + rows["unscored"] == 50
    lines = lines_of(out, "rejects/")
    assert {"judge/unreadable", "judge/batch_no_answer", "judge/low_score"} <= {line["reason"] for line in lines}
    assert cost_pico(out) == stub.billed_pico


def test_a_judge_that_cannot_be_read_is_asked_twice_more_and_then_the_row_is_kept_unscored(out, use):
    stub = use(BatchStub(10))
    write = stub._score
    stub._score = lambda fields: write(fields) | {"faithful": 9}
    counts = run_generate(judged(out, num=10)).counts
    assert sizes_of(stub) == ([10], [10, 10, 10])
    temperatures = [batch.requests[0][1]["temperature"] for batch in stub.batches.values() if is_of_scores(batch)]
    assert temperatures == [0.0, 0.7, 0.7]
    assert counts["judge"]["rows"] == {"scored": 0, "unscored": 10, "refused": 0}
    assert counts["judge"]["unusable"] == 30
    assert (cost_pico(out), stated_judge_pico(out)) == (stub.billed_pico, judge_pico(stub))


def test_no_wait_leaves_at_each_batch_and_the_same_command_goes_on(out, use):
    stub = use(BatchStub(8, num_polls=1, faults=Faults(broken=0.2, low_score=0.2)))
    num_left = 0
    while read_manifest(open_store(out)) is None:
        with contextlib.suppress(BatchesPendingError):
            run_generate(judged(out, num=8, wait=False))
        num_left += 1
    assert num_left > len(stub.batches) > 4
    assert rows_of(out) == list(range(8))
    assert max(stub.answered.values()) == 1
    assert (cost_pico(out), stated_judge_pico(out)) == (stub.billed_pico, judge_pico(stub))


def test_a_run_one_by_one_takes_the_scores_that_a_run_before_has_in_batches(out, use):
    stub = use(BatchStub(NUM, num_polls=1))
    for _ in range(2):
        with pytest.raises(BatchesPendingError):
            run_generate(judged(out, num=10, wait=False))
    assert sizes_of(stub) == ([10], [10])
    run_generate(judged(out, mode="sync"))
    assert (len(stub.batches), stub.num_alone) == (2, 2 * (NUM - 10))
    assert (rows_of(out), cost_pico(out)) == (list(range(NUM)), stub.billed_pico)


def test_other_shards_take_their_scores_of_a_batch(out, use):
    stub = use(BatchStub(NUM, num_polls=1))
    for _ in range(2):
        with pytest.raises(BatchesPendingError):
            run_generate(judged(out, wait=False, batch_size=NUM))
    for index in range(2):
        run_generate(judged(out, num_shards=2, shard_index=index))
    assert sizes_of(stub) == ([NUM], [NUM])
    assert (rows_of(out), cost_pico(out)) == (list(range(NUM)), stub.billed_pico)


def test_a_sample_is_scored_in_batches_and_a_small_rest_one_by_one(out, use):
    drawn = {row for row in range(NUM) if is_drawn(row, seed=0, share=0.4)}
    stub = use(BatchStub(NUM, faults=Faults(broken=0.1)))
    run_generate(judged(out, judge_share=0.4, batch_size=NUM, batch_rest=5))
    assert {row.meta["row"] for row in read_conversations(out) if "judge" in row.meta} == drawn
    assert stub.num_alone > 0
    assert sizes_of(stub)[1][0] > 5
    assert cost_pico(out) == stub.billed_pico


def test_writers_and_judges_batches_stay_under_one_budget_and_nothing_is_paid_for_twice(out, use):
    stub = use(BatchStub(NUM))
    budget_usd = 16 * PRICE_USD / 2
    prices = {"prompt_price_usd": 0.1, "completion_price_usd": 0.2, "judge_prompt_price_usd": 0.1}
    with pytest.raises(CreditError, match="the budget is reached"):
        run_generate(judged(out, budget_usd=budget_usd, **prices))
    assert 0.8 * budget_usd * PICO < stub.billed_pico <= 1.02 * budget_usd * PICO
    with pytest.raises(BatchesPendingError):
        run_generate(judged(out, budget_usd=1.0, wait=False, **prices))
    run_generate(judged(out, budget_usd=1.0, **prices))
    assert max(stub.answered.values()) == 1
    assert (rows_of(out), cost_pico(out)) == (list(range(NUM)), stub.billed_pico)
    [*_, last] = lines_of(out, "budget/")
    assert last["reserved_usd"] == pytest.approx(stub.billed_pico / PICO, rel=1e-6)


def test_a_budget_below_what_the_plan_needs_ends_with_rows_and_not_with_answers_that_wait_for_their_scores(out, use):
    """It was spent on rows before any of them was scored, and the set had none."""
    stub = use(BatchStub(NUM))
    prices = {"prompt_price_usd": 0.1, "completion_price_usd": 0.2, "judge_prompt_price_usd": 0.1}
    with pytest.raises(CreditError, match="the budget is reached"):
        run_generate(judged(out, budget_usd=9 * PRICE_USD / 2, batch_size=4, **prices))
    num_scores = sum(sizes_of(stub)[1])
    assert len(lines_of(out, "rows/")) == num_scores == sum(sizes_of(stub)[0]) > 2
    assert stub.billed_pico <= 9 * PRICE_USD / 2 * PICO


def test_a_judge_of_whom_no_batch_is_taken_is_asked_one_by_one_and_no_row_is_written_again(out, use, caplog):
    stub = use(BatchStub(NUM))
    taken = stub.send

    async def refuse(method: str, path: str, body: bytes, headers: Any) -> provider.HttpReply:
        if (method, path) == ("POST", "/batches") and b'"model":"judge"' in body:
            return provider.HttpReply(400, {}, b'{"error":{"message":"does not have a :batch endpoint"}}')
        reply: provider.HttpReply = await taken(method, path, body, headers)
        return reply

    stub.send = refuse
    counts = run_generate(judged(out)).counts
    assert "does not have a :batch endpoint: the endpoint takes no batch for the judge" in caplog.text
    assert sizes_of(stub) == ([10, 10, 4], [])
    assert counts["judge"]["rows"]["scored"] == stub.num_alone == NUM
    assert cost_pico(out) == stub.billed_pico


def test_a_judges_batch_that_is_gone_releases_its_answers_and_counts_as_unknown(out, use, monkeypatch):
    monkeypatch.setattr("nanosft.generate.batches.look._GONE_AFTER_S", 0.0)
    monkeypatch.setattr("nanosft.generate.batches.look._PAUSE_S", 0.0)
    stub = use(BatchStub(10))
    while len(stub.batches) < 2:
        stub.faults.gone = float(len(stub.batches))
        with pytest.raises(BatchesPendingError):
            run_generate(judged(out, num=10, wait=False))
    stub.faults.gone = 0.0
    counts = run_generate(judged(out, num=10)).counts
    assert sizes_of(stub) == ([10], [10, 10])
    assert cost_pico(out) == stub.billed_pico - stub.gone_pico
    assert counts["judge"]["unknown_usd"] * PICO == pytest.approx(stub.gone_pico, rel=0.01)
    assert {line["reason"] for line in lines_of(out, "rejects/")} == {"held", "judge/batch_gone"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a dead process closes no files
def test_neither_answer_nor_score_is_paid_for_twice_wherever_a_process_dies(tmp_path):
    """Two calls of some 250: `make chaos` tries each. A judge's batch is sent, and its id not recorded; its results are
    in the store, and no row."""
    found = explore(STAGES["batch judged"], "local", tmp_path, points=[("kill after", 51), ("kill after", 67)])
    assert found.tried.keys() == {"kill after"}
    assert found.problems == []
