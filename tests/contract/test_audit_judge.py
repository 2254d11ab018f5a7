"""An audit with a judge, against a stub that scores: refusals, money, resumption."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from nanosft.audit.report import Audit
from nanosft.audit.stage import run_audit
from nanosft.conversation import Conversation, Message, to_line
from nanosft.data import read_conversations, read_manifest
from nanosft.errors import ConfigError, CreditError, ProviderError
from nanosft.judging import make_scorer
from nanosft.settings.audit import AuditSettings
from nanosft.store import open_store
from tests.stub_provider import PRICE_USD, RunningStub, run_stub

NUM = 40


@pytest.fixture(scope="module")
def stub() -> Iterator[RunningStub]:
    with run_stub(num=1, low_score=0.25, broken_json=0.0) as running:
        yield running


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    topics = ["harbor", "copper", "violet", "meadow", "lantern", "granite", "orchard", "saffron"]
    rows = [
        Conversation(
            (
                Message("user", f"What is {number} times the {topics[number % 8]} of row {number}?"),
                Message("assistant", f"It is the {topics[number // 8]} that you find near number {number}, as I know."),
            )
        )
        for number in range(NUM)
    ]
    path.write_bytes(b"".join(map(to_line, rows)) + b"{broken\n")
    return path


def audit(source: Path, running: RunningStub, **changes: Any) -> Audit:
    values = {"uri": str(source), "judge_model": "judge", "base_url": running.base_url, "json_output": True}
    values |= {"skip_gates": ("near_duplicate",), "prompt_price_usd": 1.0}
    settings = AuditSettings(**{**values, **changes})
    with make_scorer(settings) as ask_scores:
        return run_audit(settings, ask_scores)


def judge_of(found: Audit) -> dict[str, Any]:
    assert found.judge is not None
    return found.judge


def test_rows_have_their_scores_and_low_ones_are_refused_with_the_reason(tmp_path, source, stub):
    before = stub.read_bill()
    out = str(tmp_path / "out")
    found = audit(source, stub, out=out, min_score=3)
    bill = stub.read_bill()
    num_low = bill["counts"]["low_scores"] - before["counts"].get("low_scores", 0)
    assert num_low > 0
    assert found.refused["judge/low_score"] == num_low == found.num_refused
    assert judge_of(found)["rows"] == {"scored": NUM - num_low, "unscored": 0, "refused": num_low}
    assert judge_of(found)["scores"]["lowest"]["mean"] == 5.0
    assert judge_of(found)["cost_usd"] == pytest.approx(NUM * PRICE_USD)
    kept = list(read_conversations(f"{out}/clean"))
    assert all(conversation.meta["judge"]["scores"]["faithful"] == 5 for conversation in kept)
    (defect,) = next(iter(read_conversations(f"{out}/refused"))).meta["defects"]
    assert defect["detail"] == "a judge gave it faithful 2 of 5: it stretches a fact"
    manifest = read_manifest(open_store(f"{out}/clean"))
    assert manifest is not None
    assert manifest.cost_usd == pytest.approx(NUM * PRICE_USD)
    assert manifest.counts["judge"]["rows"]["refused"] == num_low
    assert (manifest.settings["judge_model"], manifest.settings["min_score"]) == ("judge", 3)
    num_billed = stub.read_bill()["num_billed"]
    assert audit(source, stub, out=out, min_score=3).to_json() == found.to_json()  # finished: read, not asked
    assert stub.read_bill()["num_billed"] == num_billed
    with pytest.raises(ConfigError, match="min_score=3, now min_score=4"):
        audit(source, stub, out=out, min_score=4)


def test_at_its_budget_an_audit_ends_and_goes_on_without_paying_again(tmp_path, source, stub):
    before, out = stub.read_bill(), str(tmp_path / "out")
    with pytest.raises(CreditError, match=r"budget of \$0\.0065625 is reached: 10 rows are judged, and none is paid"):
        audit(source, stub, out=out, budget_usd=10.5 * PRICE_USD)
    assert stub.read_bill()["num_billed"] - before["num_billed"] == 10
    with pytest.raises(CreditError, match="10 rows are judged"):
        audit(source, stub, out=out, budget_usd=10.5 * PRICE_USD)
    assert stub.read_bill()["num_billed"] - before["num_billed"] == 10
    found = audit(source, stub, out=out, budget_usd=1.0)
    assert stub.read_bill()["num_billed"] - before["num_billed"] == NUM
    assert judge_of(found)["rows"]["scored"] == NUM
    assert judge_of(found)["cost_usd"] == pytest.approx(NUM * PRICE_USD)


def test_without_a_prefix_what_came_is_shown_and_the_rest_counted(source, stub):
    found = audit(source, stub, budget_usd=10.5 * PRICE_USD)
    assert judge_of(found)["rows"] == {"scored": 10, "unscored": NUM - 10, "refused": 0}
    assert found.num_clean == NUM


def test_answers_that_are_no_score_are_asked_for_again_and_then_the_row_stays_unscored(tmp_path, source):
    with run_stub(num=1, cut=1.0) as cutting:
        found = audit(source, cutting, out=str(tmp_path / "out"))
        assert cutting.read_bill()["num_billed"] == 3 * NUM
    assert judge_of(found)["rows"] == {"scored": 0, "unscored": NUM, "refused": 0}
    assert judge_of(found)["requests"] == 3 * NUM
    kept = next(iter(read_conversations(str(tmp_path / "out/clean"))))
    assert "cut at the token limit" in kept.meta["judge"]["unscored"]


def test_a_judge_that_is_away_is_told_and_nothing_is_lost(tmp_path, source, monkeypatch):
    monkeypatch.setattr("nanosft.judging.asking._MAX_RETRIES", 0)
    with run_stub(num=1) as gone:
        pass  # nobody listens there any more
    with pytest.raises(ProviderError, match="0 rows are judged"):
        audit(source, gone, out=str(tmp_path / "out"))


def test_a_share_of_the_rows_is_drawn_by_number_and_seed(tmp_path, source, stub):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        audit(source, stub, out=str(tmp_path / name), judge_share=0.3, seed=seed)
    judged = {
        name: [row.id for row in read_conversations(str(tmp_path / name / "clean")) if "judge" in row.meta]
        for name in "abc"
    }
    assert 0 < len(judged["a"]) < NUM // 2
    assert judged["a"] == judged["b"] != judged["c"]


def test_what_cannot_be_right_is_refused_before_anybody_is_asked(source, stub):
    with pytest.raises(ValueError, match="--min-score needs --judge-model"):
        AuditSettings(uri="x", min_score=3)
    with pytest.raises(ConfigError, match="may state no cost"):
        audit(source, stub, budget_usd=1.0, prompt_price_usd=None)
    with pytest.raises(ConfigError, match="OPENROUTER_API_KEY is not set"):
        audit(source, stub, base_url="https://openrouter.ai/api/v1")
    with pytest.raises(ConfigError, match="make_scorer"):
        run_audit(AuditSettings(uri=str(source), judge_model="judge"))


def test_an_audit_without_a_judge_states_what_it_stated_before(tmp_path, source):
    run_audit(AuditSettings(uri=str(source), out=str(tmp_path / "out"), json_output=True))
    manifest = read_manifest(open_store(str(tmp_path / "out/clean")))
    assert manifest is not None
    assert {"judge_model", "judge_share", "min_score", "seed"}.isdisjoint(manifest.settings)
    assert orjson.loads((tmp_path / "out/audit.json").read_bytes())["judge"] is None
