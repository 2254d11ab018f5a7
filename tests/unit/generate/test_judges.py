"""What the catalogue says of a judge, before it is asked."""

import logging
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from nanosft.errors import ConfigError
from nanosft.generate.estimate import price_modes
from nanosft.generate.judges import check_judge, estimate_scores_usd, tell_judge
from nanosft.generate.offers import Offers
from nanosft.generate.planning import make_plan, read_dimensions
from nanosft.generate.provider import ModelCard, Prices, make_template
from nanosft.knowledge import read_knowledge
from nanosft.settings.generate import GenerateSettings
from tests.stub_provider import KNOWLEDGE

PLAN = make_plan(read_dimensions(), read_knowledge(KNOWLEDGE), seed=0)
PRICES = Prices(Decimal("3e-7"), Decimal("2.5e-6"))
FIELDS = frozenset({"structured_outputs", "response_format"})


def settings(**changes: Any) -> GenerateSettings:
    return GenerateSettings(**{"out": "x", "provider": "offline", "judge_model": "a/judge", **changes})


def offers(**changes: Any) -> Offers:
    values: dict[str, Any] = {"context_length": 100_000, "prices": PRICES, "supported_parameters": FIELDS} | changes
    return Offers("2026-11-28", {"a/judge": ModelCard("a/judge", **values)})


@pytest.fixture(autouse=True)
def _heard(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("nanosft"), "propagate", True)
    caplog.set_level(logging.WARNING, "nanosft")


def test_a_judge_that_is_unknown_or_ends_soon_is_named(caplog):
    check_judge(settings(), PLAN, offers())
    assert not caplog.records
    check_judge(settings(judge_model="a/gone"), PLAN, offers())
    ends = datetime.now(UTC) + timedelta(days=29)
    check_judge(settings(), PLAN, offers(expires=ends))
    unknown, soon = (record.getMessage() for record in caplog.records)
    assert "a/gone is not in the catalogue" in unknown
    assert f"a/judge is offered until {ends:%Y-%m-%d}: choose another --judge-model" in soon


def test_a_judge_that_cannot_do_the_job_is_refused():
    with pytest.raises(ConfigError, match="--judge-model a/judge: does not bind"):
        check_judge(settings(), PLAN, offers(supported_parameters=frozenset({"tools"})))
    with pytest.raises(ConfigError, match="--judge-model a/judge: has a context of 4,000 tokens, and a prompt has"):
        check_judge(settings(), PLAN, offers(context_length=4000))
    with pytest.raises(ConfigError, match="--judge-model a/judge: writes at most 100 tokens an answer, and 512 may"):
        check_judge(settings(), PLAN, offers(max_completion_tokens=100))
    check_judge(settings(judge_model="local"), PLAN, offers())


def test_a_dry_run_tells_the_price_of_a_judge_and_its_day():
    assert "(0.30 and 2.50 dollars per million tokens of 2026-11-28)" in tell_judge(settings(), PLAN, offers())


def test_scores_in_batches_are_told_and_compared_by_the_judges_own_batch_price():
    half = Prices(PRICES.prompt / 2, PRICES.completion / 2)
    asked = settings(provider="openrouter", model=("a/judge",), num=100, judge_share=0.5, concurrency=1)
    found = offers(batch_prices=half)
    alone_usd, batch_usd = estimate_scores_usd(asked, PLAN, found)
    assert batch_usd
    assert batch_usd == pytest.approx((alone_usd or 0) / 2)
    assert f", ${batch_usd:,.2f} with it in batches (0.30" in tell_judge(asked, PLAN, found)
    assert "in batches" not in tell_judge(settings(), PLAN, found)  # nobody is asked in batches there
    template = make_template(PLAN)
    prices = price_modes(asked, template, PLAN, found)
    unjudged = price_modes(asked.model_copy(update={"judge_model": None}), template, PLAN, found)
    assert (prices.sync_usd or 0) - (unjudged.sync_usd or 0) == pytest.approx(alone_usd)
    assert (prices.batch_usd or 0) - (unjudged.batch_usd or 0) == pytest.approx(batch_usd)
    dearer = price_modes(asked.model_copy(update={"judge_model": "a/other"}), template, PLAN, found)
    assert dearer == unjudged
