from datetime import UTC, datetime
from decimal import Decimal

import pytest

from nanosft.generate.provider.cards import ModelCard, Prices, Reasoning, parse_cards, parse_price, show_million

NOW = datetime(2026, 11, 28, tzinfo=UTC)
ENTRY = {
    "id": "a/one",
    "context_length": 1_048_576,
    "pricing": {
        "prompt": "0.0000003",
        "completion": "0.0000025",
        "input_cache_read": "0.00000003",
        "internal_reasoning": "0.0000025",
        "image": "0.0003",
    },
    "top_provider": {"context_length": 1_000_000, "max_completion_tokens": 65_535},
    "supported_parameters": ["structured_outputs", "response_format", "reasoning"],
    "reasoning": {"mandatory": True, "supported_efforts": ["high", "low", "minimal", "huge"]},
    "expiration_date": "2026-12-01",
}


def card_of(**changes):
    return parse_cards([{**ENTRY, **changes}])["a/one"]


def test_an_entry_is_read_whole_and_exactly():
    assert card_of() == ModelCard(
        slug="a/one",
        context_length=1_000_000,
        max_completion_tokens=65_535,
        prices=Prices(Decimal("3e-7"), Decimal("2.5e-6"), Decimal("3e-8"), Decimal("2.5e-6")),
        supported_parameters=frozenset({"structured_outputs", "response_format", "reasoning"}),
        expires=datetime(2026, 12, 1, tzinfo=UTC),
        reasoning=Reasoning(is_mandatory=True, efforts=("minimal", "low", "high")),
    )


def test_a_batch_entry_stands_in_the_card_of_its_model():
    half = {"id": "a/one:batch", "pricing": {"prompt": "0.00000015", "completion": "0.00000125"}}
    alone = {"id": "b/two:batch", "pricing": half["pricing"]}
    cards = parse_cards([half, ENTRY, alone])
    assert list(cards) == ["a/one"]
    assert cards["a/one"].batch_prices == Prices(Decimal("1.5e-7"), Decimal("1.25e-6"))
    assert card_of().batch_prices is None


@pytest.mark.parametrize(
    "value",
    [
        *("-1", -1, "NaN", float("nan"), "Infinity", float("inf"), "1e308", 1e308, "1e-99", "1e999999999999999999999"),
        *("", "free", "0x1", "1_0", "\u0661", "1" * 100, "5", None, True, [], {}),
    ],
)
def test_what_is_no_price_is_none(value):
    assert parse_price(value) is None
    assert card_of(pricing={"prompt": value, "completion": "0.1"}).prices is None
    cached = card_of(pricing={"prompt": "0", "completion": "0", "input_cache_read": value}).prices
    assert cached == Prices(Decimal(0), Decimal(0))


@pytest.mark.parametrize(
    ("value", "price"), [("0", "0"), ("0.000", "0"), (0, "0"), (3e-7, "3e-7"), ("3E-7", "3e-7"), (" .01 ", "0.01")]
)
def test_what_is_a_price(value, price):
    assert parse_price(value) == Decimal(price)


@pytest.mark.parametrize(
    "item", [None, 1, [], {}, {"id": 1}, {"id": ""}, {"id": "a b"}, {"id": "a\n"}, {"id": "x" * 999}]
)
def test_an_entry_without_a_slug_is_left_out(item):
    assert parse_cards([item, ENTRY]).keys() == {"a/one"}


@pytest.mark.parametrize("value", [None, "many", 0, -5, 1.5, True, 10**30, [], {}])
def test_what_is_no_length_date_or_list_is_not_told(value):
    card = card_of(context_length=value, top_provider=value, supported_parameters=None, expiration_date=value)
    assert (card.context_length, card.max_completion_tokens) == (None, None)
    assert (card.supported_parameters, card.reasoning, card.expires) == (None, None, None)


def test_the_end_is_near_within_thirty_days():
    assert card_of().expires_within(30, now=NOW)
    assert card_of(expiration_date="2026-11-01").expires_within(30, now=NOW)
    assert not card_of(expiration_date="2026-12-28").expires_within(30, now=NOW)
    assert not card_of(expiration_date=None).expires_within(10_000, now=NOW)


def test_cached_tokens_have_a_price_of_their_own_where_it_is_told():
    assert card_of().prices.cost_usd(prompt=4000, cached=3800, completion=600) == Decimal("0.001674")
    plain = Prices(Decimal("3e-7"), Decimal("2.5e-6"))
    assert plain.cost_usd(prompt=4000, cached=3800, completion=600) == Decimal("0.0027")


def test_reasoning_tokens_are_of_the_answer_and_may_have_a_price_of_their_own():
    assert card_of().prices.cost_usd(prompt=0, completion=600, reasoning=400) == Decimal("0.0015")
    dear = Prices(Decimal(0), Decimal("1e-6"), reasoning=Decimal("3e-6"))
    assert dear.cost_usd(prompt=0, completion=600, reasoning=400) == Decimal("0.0014")


@pytest.mark.parametrize(
    ("price", "shown"),
    [
        ("3e-7", "0.30"),
        ("2.5e-6", "2.50"),
        ("0", "0.00"),
        ("3.75e-8", "0.0375"),
        ("0.001", "1,000.00"),
        ("1e-5", "10.00"),
    ],
)
def test_prices_as_people_read_them(price, shown):
    assert show_million(Decimal(price)) == shown


def test_a_record_is_exact_text():
    record = card_of().to_record()
    assert record["prices"] == {
        "prompt": "0.0000003",
        "completion": "0.0000025",
        "cached": "0.00000003",
        "reasoning": "0.0000025",
    }
    assert record["batch_prices"] is None
    assert record["expires"] == "2026-12-01"
