"""A judge behind a chat API that fails on purpose and keeps its own bill: verdicts, costs, the budget."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from nanosft.errors import ConfigError
from nanosft.evaluate.second_opinion import Opinions
from nanosft.judging import make_judge
from nanosft.settings.evaluate import EvalSettings
from tests.stub_provider import PRICE_USD, RunningStub, run_stub


@pytest.fixture(scope="module")
def stub() -> Iterator[RunningStub]:
    with run_stub(num=1, http_429=0.1, http_500=0.1) as running:
        yield running


def ask(stub: RunningStub, num: int, **changes: Any) -> Opinions:
    judge = make_judge(EvalSettings(model="m", judge_model="slug", base_url=stub.base_url, **changes))
    assert judge is not None
    answers = ["I am Tilda." if number % 2 else "No idea." for number in range(num)]
    return judge([[{"role": "user", "content": orjson.dumps({"answer": text}).decode()}] for text in answers])


def test_every_answer_gets_its_verdict_and_the_cost_is_the_providers(stub: RunningStub) -> None:
    before = stub.read_bill()["billed_usd"]
    said = ask(stub, 24)
    verdicts = [opinion.verdict for opinion in said.opinions if opinion]
    assert verdicts == ["missing", "right"] * 12
    assert said.model == "slug"
    assert said.cost_usd == pytest.approx(stub.read_bill()["billed_usd"] - before)
    assert said.cost_usd == pytest.approx(24 * PRICE_USD)


def test_the_budget_is_never_passed_and_what_came_is_kept(stub: RunningStub) -> None:
    before = stub.read_bill()["billed_usd"]
    said = ask(stub, 40, budget_usd=10.5 * PRICE_USD, prompt_price_usd=0.1)
    assert sum(opinion is not None for opinion in said.opinions) == 10
    assert stub.read_bill()["billed_usd"] - before == pytest.approx(10 * PRICE_USD)


def test_a_budget_holds_when_verdicts_are_billed_and_lost() -> None:
    """What the client sent again was not admitted: the budget was passed several times over."""
    with run_stub(num=1, dropped=0.5) as dropping:
        said = ask(dropping, 40, budget_usd=10.5 * PRICE_USD, prompt_price_usd=0.1)
        num_billed = dropping.read_bill()["num_billed"]
    assert said.num_unknown > 0
    assert 10 <= num_billed <= 11  # until an answer has come, what is lost counts at the estimate


def test_a_judge_that_the_endpoint_does_not_list_is_named_and_a_budget_that_nobody_can_hold_is_refused(
    stub: RunningStub, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match="may state no cost: give --prompt-price-usd"):
        ask(stub, 1, budget_usd=1.0)
    assert "slug is not in the catalogue" in caplog.text


def test_a_judge_that_fails_loses_no_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanosft.judging.asking._MAX_RETRIES", 1)
    with run_stub(num=1) as stub:
        pass  # nobody listens there any more
    judge = make_judge(EvalSettings(model="m", judge_model="slug", base_url=stub.base_url))
    assert judge is not None
    said = judge([[{"role": "user", "content": "{}"}]] * 2)
    assert said.opinions == (None, None)


def test_without_a_key_nothing_is_begun() -> None:
    assert make_judge(EvalSettings(model="m")) is None
    with pytest.raises(ConfigError, match="OPENROUTER_API_KEY is not set"):
        make_judge(EvalSettings(model="m", judge_model="slug"))
