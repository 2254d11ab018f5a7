from decimal import Decimal
from typing import Any

import pytest

from nanosft.errors import ConfigError
from nanosft.generate.offers import Offers
from nanosft.generate.planning import make_plan, read_dimensions
from nanosft.generate.provider import ModelCard, Prices, PromptTemplate, make_template
from nanosft.generate.writers import check_budget, check_key, make_limit, prices_usd
from nanosft.knowledge import read_knowledge
from nanosft.settings.generate import GenerateSettings
from tests.stub_provider import KNOWLEDGE

LISTED = Offers("2026-11-28", {"m": ModelCard("m", prices=Prices(Decimal("1e-6"), Decimal("2e-6")))})


@pytest.fixture(scope="module")
def template() -> PromptTemplate:
    return make_template(make_plan(read_dimensions(), read_knowledge(KNOWLEDGE), seed=0), tone="")


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({}, 64),
        ({"requests_per_minute": 6.0}, 30),
        ({"requests_per_minute": 6.0, "row_timeout_s": 60.0}, 3),
        ({"tokens_per_minute": 1.0}, 1),
        ({"provider": "local"}, 1),
    ],
)
def test_no_row_waits_for_its_turn_longer_than_its_time(template, changes, most):
    assert make_limit(GenerateSettings(out="x", **changes), template).ceiling == most


@pytest.mark.parametrize("key", ["sk-a\nb", "sk-\u2026"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(key):
    with pytest.raises(ConfigError, match="copy it once more") as raised:
        check_key(GenerateSettings(out="x", openrouter_api_key=key))
    assert key not in str(raised.value)


def test_a_budget_needs_a_cost_that_is_stated_or_a_price():
    asked: dict[str, Any] = {"out": "x", "model": "m", "base_url": "http://127.0.0.1:9/v1", "budget_usd": 1.0}
    with pytest.raises(ConfigError, match="may state no cost"):
        check_budget(GenerateSettings(**asked), Offers())
    with pytest.raises(ConfigError, match="may state no cost"):
        check_budget(GenerateSettings(**asked, fallback_models=("other",)), LISTED)
    check_budget(GenerateSettings(**asked), LISTED)
    check_budget(GenerateSettings(**asked, prompt_price_usd=1.0), Offers())
    check_budget(GenerateSettings(**asked, openrouter_fields=True), Offers())


def test_who_is_not_asked_over_the_network_costs_nothing():
    (prices,) = prices_usd(GenerateSettings(out="x", provider="offline"), Offers()).values()
    assert prices.cost_usd(prompt=10, completion=10) == 0
