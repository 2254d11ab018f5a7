import logging
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from nanosft.errors import ConfigError
from nanosft.generate.offers import (
    Offers,
    OtherModels,
    check_offers,
    find_prices,
    find_reasoning,
    read_offers,
    warn_of_unread,
)
from nanosft.generate.provider import ModelCard, Prices, Reasoning
from nanosft.settings.generate import GenerateSettings

PRICES = Prices(Decimal("3e-7"), Decimal("2.5e-6"), Decimal("3e-8"))
PARAMETERS = frozenset({"structured_outputs", "response_format", "reasoning"})
SHORT = {"num_prompt_tokens": 5000, "max_tokens": 2048}
LONG = {"num_prompt_tokens": 98_000, "max_tokens": 2048}
CARD = ModelCard("a/one", "a/one-20260101", 100_000, 8_000, PRICES, supported_parameters=PARAMETERS)


def settings(**changes):
    return GenerateSettings(**{"out": "x", "model": "a/one", **changes})


def offers(**changes):
    values = {name: getattr(CARD, name) for name in CARD.__slots__} | changes
    return Offers("2026-11-28", {"a/one": ModelCard(**values)})


def warnings_of(caplog, found, asked=None):
    caplog.clear()
    with caplog.at_level(logging.WARNING, "nanosft"):
        warn_of_unread(found)
        check_offers(asked or settings(), found, **SHORT)
    return [record.getMessage() for record in caplog.records]


@pytest.fixture(autouse=True)
def _heard(monkeypatch):
    monkeypatch.setattr(logging.getLogger("nanosft"), "propagate", True)


def test_a_model_that_can_do_the_job_is_no_word_worth(caplog):
    assert not warnings_of(caplog, offers())
    assert not warnings_of(caplog, offers(), settings(model="a/one:nitro"))
    assert not warnings_of(caplog, Offers())


def test_a_model_that_is_unknown_or_ends_soon_is_named(caplog):
    (unknown,) = warnings_of(caplog, offers(), settings(model="a/gone"))
    assert "a/gone is not in the catalogue" in unknown
    ends = datetime.now(UTC) + timedelta(days=29)
    (soon,) = warnings_of(caplog, offers(expires=ends))
    assert f"a/one is offered until {ends:%Y-%m-%d}" in soon
    assert not warnings_of(caplog, offers(expires=ends + timedelta(days=2)))
    (fallback,) = warnings_of(caplog, offers(), settings(fallback_models=("b/gone",)))
    assert "b/gone" in fallback


def test_a_model_without_schemas_is_refused_and_one_that_may_ignore_them_is_named(caplog):
    (named,) = warnings_of(caplog, offers(supported_parameters=frozenset({"response_format"})))
    assert "structured_outputs" in named
    prose = offers(supported_parameters=frozenset({"tools"}))
    with pytest.raises(ConfigError, match="--model a/one: does not bind"):
        check_offers(settings(), prose, **SHORT)
    assert not warnings_of(caplog, prose, settings(base_url="http://127.0.0.1:9/v1"))


def test_a_plan_that_does_not_fit_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"--model a/one: has a context of 100,000 tokens, and .* 98,000"):
        check_offers(settings(), offers(), **LONG)
    with pytest.raises(ConfigError, match="--model a/one: writes at most 1,000 tokens"):
        check_offers(settings(), offers(max_completion_tokens=1000), **SHORT)
    with pytest.raises(ConfigError, match="--fallback-models a/one: has a context"):
        check_offers(settings(model="b", fallback_models=("a/one",)), offers(), **LONG)
    check_offers(settings(), offers(context_length=None, max_completion_tokens=None), **LONG)


def test_without_a_catalogue_the_run_is_told_so_and_goes_on(caplog):
    found = read_offers(settings(base_url="http://127.0.0.1:9/v1"))
    assert (found.date, found.cards, found.to_record(["a/one"])) == ("", {}, None)
    (said,) = warnings_of(caplog, found)
    assert "the catalogue was not read" in said
    assert "127.0.0.1:9" in said
    assert read_offers(settings(provider="offline", base_url="http://127.0.0.1:9/v1")) == Offers()


def test_prices_that_are_given_win_over_the_catalogue():
    assert find_prices(offers(), "a/one", (None, None)) == PRICES
    assert find_prices(offers(), "a/one", (1.0, None)) == Prices(Decimal("1e-6"), Decimal("2.5e-6"))
    assert find_prices(Offers(), "a/one", (1.0, 2.0)) == Prices(Decimal("1e-6"), Decimal("2e-6"))
    assert find_prices(offers(), "a/one", (None, 2.0)) == Prices(PRICES.prompt, Decimal("2e-6"), PRICES.cached)
    assert find_prices(offers(), "a/two", (None, None)) is None


@pytest.mark.parametrize(
    ("reasoning", "effort", "field"),
    [
        (None, "off", None),
        (None, "high", None),
        (Reasoning(), "off", {"enabled": False}),
        (Reasoning(), "low", {"effort": "low", "exclude": True}),
        (Reasoning(is_mandatory=True), "off", {"effort": "minimal", "exclude": True}),
        (Reasoning(is_mandatory=True, efforts=("low", "high")), "off", {"effort": "low", "exclude": True}),
        (Reasoning(efforts=("low", "high")), "medium", {"effort": "high", "exclude": True}),
        (Reasoning(efforts=("low", "high")), "xhigh", {"effort": "high", "exclude": True}),
    ],
)
def test_reasoning_is_off_or_at_its_least_and_never_asked_of_a_model_without_it(reasoning, effort, field):
    assert find_reasoning(settings(reasoning=effort), offers(reasoning=reasoning), "a/one") == field


def test_without_a_catalogue_only_an_effort_that_is_wished_for_is_sent():
    assert find_reasoning(settings(), Offers(), "a/one") is None
    assert find_reasoning(settings(reasoning="low"), Offers(), "a/one") == {"effort": "low", "exclude": True}


def test_an_answer_of_another_model_is_told_once(caplog):
    warn = OtherModels(offers())
    with caplog.at_level(logging.WARNING, "nanosft"):
        for answered in ("a/one", "a/one-20260101", "one-2026-11-02", "a/one:free", "b/two", "b/two", "a/one-pro"):
            warn("a/one", answered)
        warn("x", "y")
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "a/one was asked, and b/two answered",
        "a/one was asked, and a/one-pro answered",
        "x was asked, and y answered",
    ]


def test_a_manifest_keeps_the_day_and_the_cards_of_the_models_that_are_asked():
    record = offers().to_record(["a/one", "a/gone"])
    assert record["date"] == "2026-11-28"
    assert record["models"].keys() == {"a/one"}
    assert record["models"]["a/one"]["prices"]["prompt"] == "0.0000003"
