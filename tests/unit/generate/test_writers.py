import pytest

from nanosft.errors import ConfigError
from nanosft.generate.planning import make_plan, read_dimensions
from nanosft.generate.provider import PromptTemplate, make_template
from nanosft.generate.writers import check_key, is_from_memory, make_limit, prices_usd
from nanosft.knowledge import read_knowledge
from nanosft.settings.generate import GenerateSettings
from tests.stub_provider import KNOWLEDGE


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


def test_a_price_that_is_given_wins_over_the_one_from_memory():
    told = GenerateSettings(out="x", prompt_price_usd=1.0, completion_price_usd=2.0)
    assert (prices_usd(told), is_from_memory(told)) == ((1.0, 2.0), False)
    half = GenerateSettings(out="x", prompt_price_usd=1.0)
    assert (prices_usd(half), is_from_memory(half)) == ((1.0, 2.5), True)
    assert prices_usd(GenerateSettings(out="x", model="other/model")) is None
