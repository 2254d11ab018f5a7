"""A preview: a few rows made, shown and kept, and the run that follows goes on from them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from nanosft.cli import app
from nanosft.data import read_conversations, read_manifest
from nanosft.generate.planning import choose_rows, make_plan, plan_row, read_dimensions
from nanosft.generate.stage import run_generate
from nanosft.knowledge import read_knowledge
from nanosft.settings.generate import GenerateSettings
from nanosft.store import open_store
from tests.stub_provider import KNOWLEDGE, PRICE_USD, RunningStub, run_stub

NUM = 40


@pytest.fixture(scope="module")
def stub() -> Iterator[RunningStub]:
    """Every third answer is broken JSON, or a score is low."""
    with run_stub(num=NUM, broken_json=0.3, low_score=0.3) as running:
        yield running


def settings(out: Path, running: RunningStub, **changes: Any) -> GenerateSettings:
    values = {"out": str(out), "knowledge": KNOWLEDGE, "num": NUM, "base_url": running.base_url, "model": "stub"}
    return GenerateSettings(**{**values, **changes})


def test_the_rows_differ_as_much_as_they_can_and_stay_the_same_when_the_plan_grows():
    plan = make_plan(read_dimensions(), read_knowledge(KNOWLEDGE), seed=0)
    chosen = choose_rows(plan, 1000, 5)
    rows = [plan_row(plan, number) for number in chosen]
    assert len({row.topic.id for row in rows}) == len({row.persona.id for row in rows}) == 5
    assert len({row.dynamic.id for row in rows}) == 5
    assert choose_rows(plan, 100_000, 5) == chosen == sorted(chosen)
    assert choose_rows(plan, 3, 5) == [0, 1, 2]


def test_a_preview_is_kept_and_the_run_that_follows_asks_for_the_others_alone(tmp_path, stub):
    before = stub.read_bill()
    summary = run_generate(settings(tmp_path, stub, preview=5))
    preview = summary.preview
    assert preview is not None
    chosen = [row["row"] for row in preview["rows"]]
    billed = stub.read_bill()["num_billed"] - before["num_billed"]
    assert preview["num_answers"] == billed
    assert preview["writer_usd"] == pytest.approx(billed * PRICE_USD)
    assert preview["projected_usd"] == pytest.approx(billed * PRICE_USD / 5 * NUM)
    assert preview["projected_least_usd"] <= preview["projected_usd"] <= preview["projected_most_usd"]
    assert read_manifest(open_store(str(tmp_path))) is None
    num_asked = len(stub.read_bill()["asked"])
    again = run_generate(settings(tmp_path, stub, preview=5))  # shown once more, and nobody is asked
    assert again.preview == preview
    assert len(stub.read_bill()["asked"]) == num_asked
    assert run_generate(settings(tmp_path, stub)).manifest is not None
    assert set(chosen).isdisjoint(stub.read_bill()["asked"][num_asked:])
    kept = {conversation.meta["row"] for conversation in read_conversations(str(tmp_path))}
    assert {row["row"] for row in preview["rows"] if row["verdict"] == "accepted"} <= kept


def test_verdicts_scores_refusals_and_costs_are_shown_at_100_columns_and_as_a_page(tmp_path, stub, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    page = tmp_path / "page.html"
    options = ["--knowledge", KNOWLEDGE, "--num", str(NUM), "--base-url", stub.base_url, "--model", "stub"]
    options += ["--preview", "6", "--judge-model", "judge", "--min-score", "3", "--html", str(page)]
    app(["generate", "--out", str(tmp_path / "set"), *options], standalone_mode=False)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    assert "refused: json_invalid" in shown
    words = " ".join(shown.split())
    assert "faithful 5, responsive 5, in_course 5, natural 5: well told" in words
    assert "of 6 rows accepted" in words
    assert f"all {NUM} rows at this rate: about $" in words
    text = page.read_text()
    assert "<h1>Preview</h1>" in text
    assert "topic and persona" in text


def test_a_row_given_up_is_shown_with_every_reason(tmp_path, capsys):
    with run_stub(num=2, broken_json=1.0) as broken:
        summary = run_generate(settings(tmp_path, broken, num=2, preview=1, max_attempts=1, json_output=True))
    assert summary.preview is not None
    (row,) = summary.preview["rows"]
    assert (row["verdict"], len(row["rejects"])) == ("given up", 2)
    assert {reject["reason"] for reject in row["rejects"]} == {"json_invalid"}
    told = orjson.loads(capsys.readouterr().out)
    assert told["preview"] == summary.preview


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"preview": 3, "num_shards": 2}, "without --num-shards"),
        ({"preview": 3, "finalize": True}, "without --num-shards and --finalize"),
        ({"html": "x.html"}, "--html shows what --preview makes"),
    ],
)
def test_what_a_preview_does_not_go_with_is_said(changes, problem):
    with pytest.raises(ValueError, match=problem):
        GenerateSettings(out="x", **changes)
