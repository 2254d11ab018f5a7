"""Batches through the stage: what lies in the store and on the bill, whatever the provider does."""

from typing import Any

import orjson
import pytest

from nanosft.data import read_conversations
from nanosft.errors import BatchesPendingError, ConfigError, CreditError, ProviderError
from nanosft.generate import provider
from nanosft.generate.stage import run_generate
from nanosft.store import open_store
from tests.batching import (
    FORMS,
    MANY_FAULTS,
    NUM,
    cost_pico,
    lines_of,
    manifest_of,
    rows_of,
    settings,
)
from tests.chaos.explore import explore
from tests.chaos.stages import STAGES
from tests.stub_batches import PICO, BatchStub, Faults
from tests.stub_provider import PRICE_USD


@pytest.mark.parametrize("states_costs", [False, True])
def test_every_row_comes_in_batches_and_the_bill_is_the_manifests_cost(out, use, states_costs):
    stub = use(BatchStub(NUM, states_costs=states_costs))
    summary = run_generate(settings(out))
    assert (summary.num_accepted, rows_of(out)) == (NUM, list(range(NUM)))
    assert [len(batch.requests) for batch in stub.batches.values()] == [25, 25, 10]
    assert stub.num_alone == 0
    assert cost_pico(out) == stub.billed_pico
    assert len([info for info in open_store(out).list("batches/") if info.key.endswith(".done.json")]) == 3
    assert not [info for info in open_store(out).list("batches/") if info.key.endswith(".jsonl")]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_refused_goes_into_the_next_batch_with_the_reason_and_a_small_rest_goes_alone(out, use, form):
    stub = use(BatchStub(NUM, form=form, faults=Faults(broken=0.3)))
    prices = {"prompt_price_usd": 0.1, "completion_price_usd": 0.2}
    run_generate(settings(out, openrouter_fields=form == "openrouter", **prices))
    assert rows_of(out) == list(range(NUM))
    again = [fields for batch in stub.batches.values() for name, fields in batch.requests if name.split("-")[2] == "1"]
    assert again
    assert all("broken JSON" in str(fields["messages"][-1]) for fields in again)
    assert max(stub.answered.values()) == 1
    if form == "openrouter":
        assert cost_pico(out) == stub.billed_pico
    else:
        assert cost_pico(out) > 0


@pytest.mark.parametrize("form", FORMS)
def test_whatever_fails_every_row_comes_and_every_cent_is_counted(out, use, form):
    stub = use(BatchStub(200, form=form, faults=Faults(**MANY_FAULTS)))
    run_generate(settings(out, num=200, openrouter_fields=form == "openrouter", prompt_price_usd=1.0))
    assert rows_of(out) == list(range(200))
    if form == "openrouter":
        assert cost_pico(out) == stub.billed_pico
    released = [line for line in lines_of(out, "rejects/") if line["reason"] == "batch_no_answer"]
    assert released
    assert all(line["attempt"] is None for line in released)


def test_a_rest_that_is_no_smaller_than_a_batch_is_made_by_the_same_run(out, use):
    """Refused rows were forgotten until the next run where `--batch-rest` was not below `--batch-size`."""
    stub = use(BatchStub(4, faults=Faults(broken=1.0)))

    def spoil_the_first_and_delay_the_second(call: str) -> None:
        stub.faults.broken = 0.0
        if call == "POST batches" and len(stub.batches) == 2:
            stub.batches["batch-1"].num_polls = -3

    stub.on_call = spoil_the_first_and_delay_the_second
    summary = run_generate(settings(out, num=4, batch_size=2, batch_rest=3))
    assert (summary.num_accepted, rows_of(out)) == (4, [0, 1, 2, 3])
    assert cost_pico(out) == stub.billed_pico


def test_no_wait_leaves_with_all_recorded_and_the_same_command_takes_the_results(out, use):
    stub = use(BatchStub(NUM, num_polls=3))
    for _ in range(2):
        with pytest.raises(BatchesPendingError, match="run the same command again") as raised:
            run_generate(settings(out, wait=False))
        assert raised.value.exit_code == 75
    run_generate(settings(out))
    assert len(stub.batches) == 3
    assert (rows_of(out), cost_pico(out)) == (list(range(NUM)), stub.billed_pico)


def test_a_run_one_by_one_first_takes_what_a_run_before_has_in_batches(out, use):
    stub = use(BatchStub(NUM))
    with pytest.raises(BatchesPendingError):
        run_generate(settings(out, num=40, wait=False))
    run_generate(settings(out, mode="sync"))
    assert (len(stub.batches), stub.num_alone) == (2, NUM - 40)
    assert (rows_of(out), cost_pico(out)) == (list(range(NUM)), stub.billed_pico)


def test_other_shards_take_their_rows_of_a_batch(out, use):
    stub = use(BatchStub(NUM))
    with pytest.raises(BatchesPendingError):
        run_generate(settings(out, wait=False))
    for index in range(3):
        run_generate(settings(out, num_shards=3, shard_index=index))
    assert (len(stub.batches), stub.num_alone) == (3, 0)
    assert (rows_of(out), cost_pico(out)) == (list(range(NUM)), stub.billed_pico)


def test_a_budget_is_held_for_a_batch_and_settled_by_its_cost(out, use):
    stub = use(BatchStub(NUM))
    budget_usd = 30 * PRICE_USD / 2
    prices = {"prompt_price_usd": 0.1, "completion_price_usd": 0.2}
    with pytest.raises(CreditError, match="the budget is reached"):
        run_generate(settings(out, budget_usd=budget_usd, **prices))
    assert 0.8 * budget_usd * PICO < stub.billed_pico <= 1.01 * budget_usd * PICO
    with pytest.raises(BatchesPendingError):
        run_generate(settings(out, budget_usd=1.0, wait=False, **prices))
    run_generate(settings(out, budget_usd=1.0, **prices))
    assert (rows_of(out), cost_pico(out)) == (list(range(NUM)), stub.billed_pico)
    store = open_store(out)
    last = [info.key for info in store.list("budget/")][-1]
    assert orjson.loads(store.read(last))["reserved_usd"] == pytest.approx(stub.billed_pico / PICO, rel=1e-6)


def test_an_endpoint_that_takes_no_batch_is_told_and_costs_no_row(out, use):
    stub = use(BatchStub(NUM))
    taken = stub.send

    async def refuse(method: str, path: str, body: bytes, headers: Any) -> provider.HttpReply:
        if (method, path) == ("POST", "/batches"):
            return provider.HttpReply(400, {}, b'{"error":{"message":"does not have a :batch endpoint"}}')
        reply: provider.HttpReply = await taken(method, path, body, headers)
        return reply

    stub.send = refuse
    with pytest.raises(ConfigError, match=r"does not have a :batch endpoint.*--mode sync"):
        run_generate(settings(out))
    run_generate(settings(out, mode="sync"))
    assert rows_of(out) == list(range(NUM))


def test_batches_that_bring_nothing_end_the_run(out, use):
    stub = use(BatchStub(NUM, faults=Faults(failed=1.0)))
    with pytest.raises(ProviderError, match="3 batches in a row brought no answer: the model went away"):
        run_generate(settings(out))
    assert stub.billed_pico == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a dead process closes no files
@pytest.mark.parametrize("form", FORMS)
def test_no_row_is_paid_for_twice_wherever_a_process_dies(tmp_path, form):
    """Three calls of some ninety: `make chaos` tries each."""
    found = explore(
        STAGES[f"batch {form}"],
        "local",
        tmp_path,
        points=[("kill after", 10), ("kill after", 14), ("kill before", 30)],
    )
    assert found.tried.keys() == {"kill after", "kill before"}
    assert found.problems == []


def test_an_answer_of_another_model_is_told_once_and_named_in_every_rows_meta(out, use, caplog):
    use(BatchStub(NUM))
    run_generate(settings(out, model="a/asked", num=10))
    assert caplog.text.count("a/asked was asked, and stub answered") == 1
    assert {(row.meta["model"], row.meta["asked"]) for row in read_conversations(out)} == {("stub", "a/asked")}


@pytest.fixture
def believes_at_once(monkeypatch):
    """A batch that is not found is gone: nobody waits."""
    monkeypatch.setattr("nanosft.generate.batches.look._GONE_AFTER_S", 0.0)
    monkeypatch.setattr("nanosft.generate.batches.look._PAUSE_S", 0.0)


@pytest.mark.parametrize(("form", "fault"), [("openrouter", "gone"), ("openai", "lost_files")])
@pytest.mark.usefixtures("believes_at_once")
def test_a_batch_that_the_provider_no_longer_knows_releases_its_rows(out, use, caplog, form, fault):
    """HTTP 404 ended this run, and each after it, with 75 until the batch's record was removed by hand."""
    stub = use(BatchStub(NUM, form=form, faults=Faults(**{fault: 1.0}), states_costs=True))
    options = {"openrouter_fields": form == "openrouter", "batch_rest": 0, "budget_usd": 1.0, "prompt_price_usd": 0.07}
    with pytest.raises(BatchesPendingError):
        run_generate(settings(out, num=10, wait=False, **options))
    stub.faults = Faults()
    run_generate(settings(out, num=20, **options))
    assert rows_of(out) == list(range(20))
    assert "batch 1/00000-000000 is taken to be gone" in caplog.text
    lost_pico = stub.batches["batch-0"].cost_pico
    [note] = lines_of(out, "batches/1/00000-000000.done")
    assert "HTTP 404" in note["gone"]
    counts, store = manifest_of(out).counts, open_store(out)
    assert note["num_gone"] == counts["rejects"]["batch_gone"] == counts["answers"]["unknown"] == 10
    assert cost_pico(out) == stub.billed_pico - lost_pico
    assert counts["cost"]["unknown_usd"] * PICO == pytest.approx(lost_pico, rel=0.01)
    last = [info.key for info in store.list("budget/")][-1]
    assert orjson.loads(store.read(last))["reserved_usd"] * PICO == pytest.approx(stub.billed_pico, rel=0.01)


@pytest.mark.usefixtures("believes_at_once")
def test_results_that_are_gone_of_a_batch_that_states_its_cost_are_counted_with_it(out, use):
    stub = use(BatchStub(NUM, faults=Faults(lost_files=1.0)))
    with pytest.raises(BatchesPendingError):
        run_generate(settings(out, num=10, wait=False))
    stub.faults = Faults()
    run_generate(settings(out, num=10))
    assert (rows_of(out), cost_pico(out)) == (list(range(10)), stub.billed_pico)
    assert manifest_of(out).counts["rejects"] == {"batch_no_answer": 10}


@pytest.mark.usefixtures("believes_at_once")
def test_a_batch_that_was_sent_elsewhere_is_not_taken_to_be_gone(out, use):
    stub = use(BatchStub(NUM))
    with pytest.raises(BatchesPendingError):
        run_generate(settings(out, num=10, wait=False))
    known = stub.send

    async def deny(*_: object) -> provider.HttpReply:
        return provider.HttpReply(404, {}, b'{"error":{"message":"no such batch"}}')

    stub.send = deny
    with pytest.raises(ConfigError, match="1/00000-000000 was sent to http://stub/v1: run the same command with"):
        run_generate(settings(out, num=10, base_url="http://other/v1"))
    stub.send = known
    run_generate(settings(out, num=10))
    assert (len(stub.batches), rows_of(out), cost_pico(out)) == (1, list(range(10)), stub.billed_pico)


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_that_is_not_found_soon_after_it_was_sent_is_waited_for(out, use, form):
    """A service was seen to answer 404 a second after it had taken a batch, and once more two minutes later."""
    stub = use(BatchStub(NUM, form=form, num_polls=4, num_denied=3))
    run_generate(settings(out, num=10, openrouter_fields=form == "openrouter"))
    assert (len(stub.batches), rows_of(out), max(stub.answered.values())) == (1, list(range(10)), 1)


@pytest.mark.usefixtures("believes_at_once")
def test_a_batch_that_is_not_found_once_is_not_gone(out, use):
    stub = use(BatchStub(NUM, num_denied=1))
    run_generate(settings(out, num=10))
    assert (len(stub.batches), rows_of(out), cost_pico(out)) == (1, list(range(10)), stub.billed_pico)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a dead process closes no files
def test_no_row_is_lost_wherever_a_process_dies_while_batches_are_gone(tmp_path):
    """One call of some ninety: `make chaos` tries each."""
    found = explore(STAGES["batch gone"], "local", tmp_path, points=[("kill after", 18)])
    assert found.tried.keys() == {"kill after"}
    assert found.problems == []
