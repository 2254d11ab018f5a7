import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosft.knowledge.quantities import find_dates, find_links, find_quantities


def quantities(text: str) -> list[tuple[float, str]]:
    return [(quantity.value, quantity.unit) for quantity in find_quantities(text) if quantity.unit]


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("1.9 billion parameters", 1.9e9, "parameter"),
        ("1.9B params", 1.9e9, "parameter"),
        ("1,900 million parameters", 1.9e9, "parameter"),
        ("561M parameters", 561e6, "parameter"),
        ("$800", 800, "$"),
        ("800 dollars", 800, "$"),
        ("US$800", 800, "$"),
        ("$1.5 million", 1.5e6, "$"),
        ("four hours", 14400, "s"),
        ("240 minutes", 14400, "s"),
        ("32 transformer layers", 32, "layer"),
        ("Thirty-two layers", 32, "layer"),
        ("a 2,048-token context", 2048, "token"),
        ("an 8XH100 node", 8, "gpu"),
        ("8 H100 GPUs", 8, "gpu"),
        ("4.5 %", 4.5, "%"),
        ("24GB", 24e9, "B"),
        ("$24/hr", 24, "$"),
    ],
)
def test_normal_forms(text, value, unit):
    ((found, found_unit),) = quantities(f"It has {text}.")
    assert found == pytest.approx(value)
    assert found_unit == unit


def test_ranges_share_the_unit():
    assert quantities("3-4 hours") == [(10800, "s"), (14400, "s")]
    assert quantities("$100 to $300") == [(100, "$"), (300, "$")]
    assert quantities("2 to 3 billion tokens") == [(2e9, "token"), (3e9, "token")]


def test_names_and_versions_are_no_quantities():
    assert quantities("GPT-4 and d32 run speedrun.sh v1.2.3 with `8` and section 3.") == []


@given(st.integers(1, 999), st.sampled_from(["million", "billion"]))
def test_scaled_spellings_are_one_number(number, scale):
    suffix = {"million": "M", "billion": "B"}[scale]
    spelled, short = quantities(f"{number} {scale} tokens"), quantities(f"{number}{suffix} tokens")
    digits = quantities(f"{number * {'million': 10**6, 'billion': 10**9}[scale]:,} tokens")
    assert spelled == short == digits


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("in 2025", (2025, 0, 0)),
        ("(2019)", (2019, 0, 0)),
        ("October 2025", (2025, 10, 0)),
        ("Oct. 13, 2025", (2025, 10, 13)),
        ("13th of October 2025", (2025, 10, 13)),
        ("on 2025-10-13", (2025, 10, 13)),
    ],
)
def test_dates(text, date):
    assert [found[:3] for found in find_dates(f"made {text}.")] == [date]


def test_counts_are_no_dates():
    assert not list(find_dates("about 2048 tokens for 2000 people of 2048 dimensions, in 2048 steps"))


def test_links_have_one_form():
    text = "See https://www.GitHub.com/karpathy/nanochat/. Or nanochat.karpathy.ai! Not speedrun.sh, report.md or a.b."
    assert [link.url for link in find_links(text)] == ["github.com/karpathy/nanochat", "nanochat.karpathy.ai"]


@given(st.text())
def test_any_text_can_be_read(text):
    for quantity in find_quantities(text):
        assert 0 <= quantity.start < quantity.end <= len(text)
    list(find_dates(text))
    list(find_links(text))


@pytest.mark.parametrize(
    "hedge",
    ["about", "(about", "under", "less than", "more than", "up to", "at least", "close to", "just over", "around the"],
)
def test_every_hedge_is_seen(hedge):
    (quantity,) = find_quantities(f"It takes {hedge} 45 hours")
    assert quantity.is_hedged
    (plain,) = find_quantities("It takes these 45 hours")
    assert not plain.is_hedged


def test_every_link_of_a_text_is_found():
    text = "See a.b@mail.com, www.x.org/y and (https://z.io): then Plain.Text, z.dev.\nnot.a.file but q.ai"
    assert [link.url for link in find_links(text)] == ["x.org/y", "z.io", "z.dev", "q.ai"]


def test_a_number_of_more_digits_than_a_float_holds():
    assert [quantity.unit for quantity in find_quantities(f"1{'0' * 400} tokens, 0.{'0' * 400}1 s")] == ["token", ""]
