"""The stage with a judge, over its own store, against a stub that scores: refusals, money, holding, samples."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from nanosft.data import read_conversations, read_manifest
from nanosft.errors import ConfigError, CreditError, ProviderError
from nanosft.generate import judges
from nanosft.generate.stage import run_generate
from nanosft.generate.writers import open_client
from nanosft.quality.scores import is_drawn
from nanosft.report.rows import read_rejects, read_set
from nanosft.report.stage import write_set_page
from nanosft.settings.generate import GenerateSettings
from nanosft.store import open_store
from tests.stub_provider import KNOWLEDGE, PRICE_USD, RunningStub, run_stub

NUM = 40


@pytest.fixture(scope="module")
def stub() -> Iterator[RunningStub]:
    """A judge who finds one conversation in five unfaithful."""
    with run_stub(num=NUM, low_score=0.2) as running:
        yield running


def settings(out: Path, running: RunningStub, **changes: Any) -> GenerateSettings:
    values = {
        "out": str(out),
        "knowledge": KNOWLEDGE,
        "num": NUM,
        "base_url": running.base_url,
        "model": "stub",
        "concurrency": 8,
        "judge_model": "judge",
        **changes,
    }
    return GenerateSettings(**values)


def rejects_of(out: Path) -> list[dict[str, Any]]:
    store = open_store(str(out))
    return [orjson.loads(line) for info in store.list("rejects/") for line in store.read(info.key).splitlines()]


def spent(running: RunningStub, before: dict[str, Any]) -> float:
    return float(running.read_bill()["billed_usd"] - before["billed_usd"])


def test_every_row_has_its_scores_and_low_ones_are_refused_with_the_judges_reason(tmp_path, stub):
    before = stub.read_bill()
    summary = run_generate(settings(tmp_path, stub, min_score=3))
    assert summary.num_accepted == NUM
    metas = [conversation.meta["judge"] for conversation in read_conversations(str(tmp_path))]
    assert {meta["scores"]["faithful"] for meta in metas} == {5}
    assert {meta["model"] for meta in metas} == {"judge"}
    num_low = stub.read_bill()["counts"]["low_scores"] - before["counts"].get("low_scores", 0)
    refused = [record for record in rejects_of(tmp_path) if record["reason"] == "judge/low_score"]
    assert len(refused) == num_low > 0
    assert refused[0]["detail"] == "a judge gave it faithful 2 of 5: it stretches a fact"
    counts = summary.counts
    assert counts["judge"]["rows"] == {"scored": NUM, "unscored": 0, "refused": num_low}
    assert counts["judge"]["scores"]["lowest"]["mean"] == 5.0
    assert summary.cost_usd == pytest.approx(spent(stub, before))
    assert counts["judge"]["cost_usd"] == pytest.approx((NUM + num_low) * PRICE_USD)
    write_set_page(str(tmp_path / "page.html"), str(tmp_path))
    assert "Scores of the rows that are kept" in (tmp_path / "page.html").read_text()


def test_without_a_lowest_score_all_are_kept_and_the_manifest_counts_them(tmp_path, stub):
    before = stub.read_bill()
    counts = run_generate(settings(tmp_path, stub)).counts
    num_low = stub.read_bill()["counts"]["low_scores"] - before["counts"].get("low_scores", 0)
    assert num_low > 0
    assert counts["judge"]["scores"]["faithful"]["counts"] == {"1": 0, "2": num_low, "3": 0, "4": 0, "5": NUM - num_low}


def test_a_sample_is_the_same_rows_whoever_makes_them(tmp_path, stub):
    drawn = {row for row in range(NUM) if is_drawn(row, seed=0, share=0.3)}
    for index in (1, 0):
        summary = run_generate(settings(tmp_path, stub, judge_share=0.3, num_shards=2, shard_index=index))
    rows = read_conversations(str(tmp_path))
    assert {conversation.meta["row"] for conversation in rows if "judge" in conversation.meta} == drawn
    assert summary.counts["judge"]["rows"]["scored"] == len(drawn)


def test_writer_and_judge_stay_under_one_budget_and_nothing_is_paid_for_twice(tmp_path, stub):
    before = stub.read_bill()
    options = {"openrouter_fields": True, "flush_rows": 5, "concurrency": 4}
    budget_usd = 30.5 * PRICE_USD
    with pytest.raises(CreditError, match="the budget is reached"):
        run_generate(settings(tmp_path, stub, budget_usd=budget_usd, **options))
    assert spent(stub, before) <= budget_usd
    assert spent(stub, before) >= 24 * PRICE_USD
    held = [record for record in rejects_of(tmp_path) if record.get("kind") == "held"]
    assert held  # written and paid for, and there was nothing left to have it scored with
    summary = run_generate(settings(tmp_path, stub, budget_usd=1.0, **options))
    assert summary.num_accepted == NUM
    bill = stub.read_bill()
    assert bill["num_billed"] - before["num_billed"] == 2 * NUM  # each row written once, and scored once
    assert summary.cost_usd == pytest.approx(2 * NUM * PRICE_USD)
    assert summary.counts["judge"]["cost_usd"] == pytest.approx(NUM * PRICE_USD)


def test_a_judge_that_is_away_holds_what_was_written_until_it_is_back(tmp_path, stub, monkeypatch):
    with run_stub(num=1) as gone:
        pass  # nobody listens there any more
    monkeypatch.setattr(
        judges,
        "open_client",
        lambda asked, **options: open_client(asked.model_copy(update={"base_url": gone.base_url}), **options),
    )
    before = stub.read_bill()
    with pytest.raises(ProviderError):
        run_generate(settings(tmp_path, stub, num=6, max_retries=0))
    monkeypatch.undo()
    assert stub.read_bill()["num_billed"] - before["num_billed"] == 6
    assert [record["kind"] for record in rejects_of(tmp_path)] == ["held"] * 6
    assert run_generate(settings(tmp_path, stub, num=6)).num_accepted == 6
    assert stub.read_bill()["num_billed"] - before["num_billed"] == 12
    assert run_generate(settings(tmp_path, stub, num=6)).cost_usd == pytest.approx(12 * PRICE_USD)
    figures = read_set(str(tmp_path), None, None)
    read_rejects(str(tmp_path), figures, None)
    assert not figures.rejects  # what was held is no rejected answer
    assert sum(figures.cost_usd.values()) == pytest.approx(12 * PRICE_USD)
    assert sum(figures.answers.values()) == 12


def test_composed_rows_can_be_scored_too(tmp_path, stub):
    before = stub.read_bill()
    summary = run_generate(settings(tmp_path, stub, provider="offline", num=10))
    assert summary.counts["judge"]["rows"]["scored"] == 10
    assert summary.cost_usd == summary.counts["judge"]["cost_usd"] == pytest.approx(spent(stub, before))


def test_a_judge_that_cannot_be_held_to_a_budget_or_has_no_key_is_refused_before_anything_is_asked(tmp_path, stub):
    with pytest.raises(ConfigError, match="--judge-prompt-price-usd"):
        run_generate(settings(tmp_path, stub, provider="offline", budget_usd=1.0))
    with pytest.raises(ConfigError, match="OPENROUTER_API_KEY is not set"):
        run_generate(settings(tmp_path, stub, provider="offline", base_url="https://openrouter.ai/api/v1"))
    with pytest.raises(ValueError, match="--min-score needs --judge-model"):
        settings(tmp_path, stub, judge_model=None, min_score=3)
    assert not list(tmp_path.iterdir())


def test_another_judge_on_the_same_prefix_is_refused(tmp_path, stub):
    run_generate(settings(tmp_path, stub, num=2, provider="offline", judge_model=None))
    manifest = read_manifest(open_store(str(tmp_path)))
    assert manifest is not None
    new = {"judge_model", "judge_share", "judge_task", "min_score", "examples", "num_examples"}
    assert new.isdisjoint(manifest.settings)  # as before there were judges and examples
    with pytest.raises(ConfigError, match="judge_model=None, now judge_model='judge'"):
        run_generate(settings(tmp_path, stub, num=2, provider="offline"))


def test_a_dry_run_tells_what_the_judge_takes(tmp_path, stub, capsys):
    options = {"dry_run": True, "judge_share": 0.5, "judge_prompt_price_usd": 1.0, "judge_completion_price_usd": 0.0}
    run_generate(settings(tmp_path, stub, **options))
    shown = " ".join(capsys.readouterr().out.split())
    told = re.search(rf"Judge: judge scores {NUM // 2} of them: ([\d,]+) prompt tokens", shown)
    assert told is not None
    cost_usd = int(told[1].replace(",", "")) / 1e6  # at a dollar a million tokens
    assert f"about ${cost_usd:.2f} without prompt caching" in shown
