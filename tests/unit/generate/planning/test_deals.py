"""Models and languages are dealt by shares: evenly by themselves, with topics, and whatever the number of rows."""

from collections import Counter

import pytest

from nanosft.generate.planning import make_plan, plan_row, read_dimensions
from nanosft.generate.planning.deals import make_deal
from nanosft.knowledge import read_knowledge
from tests.stub_provider import KNOWLEDGE

NUM = 2000
DIMENSIONS, FACTS = read_dimensions(), read_knowledge(KNOWLEDGE)


def make(models=None, languages=None, seed=0):
    return make_plan(DIMENSIONS, FACTS, seed=seed, models=models, languages=languages)


def rows_of(plan, num=NUM):
    return [plan_row(plan, row) for row in range(num)]


def largest_difference(rows, shares, value_of, group_of=lambda _: None):
    """By how much the rows of a value differ at most from its share of the rows of a group."""
    groups = Counter(group_of(row) for row in rows)
    pairs = Counter((group_of(row), value_of(row)) for row in rows)
    total = sum(shares.values())
    return max(
        abs(pairs[group, value] - size * share / total)
        for group, size in groups.items()
        for value, share in shares.items()
    )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("models", [{"a": 1, "b": 1}, {"a": 3, "b": 1}, {"a": 2, "b": 1}])
def test_two_models_and_two_languages_over_two_thousand_rows(models, seed):
    languages = {"en": 9, "de": 1}
    rows = rows_of(make(models, languages, seed))
    assert len({row.topic.id for row in rows}) > 40
    for shares, value_of in ((models, lambda row: row.model), (languages, lambda row: row.language)):
        assert largest_difference(rows, shares, value_of) <= 1
        assert largest_difference(rows, shares, value_of, lambda row: row.topic.id) <= 1
        for group_of in (lambda row: row.persona.id, lambda row: row.dynamic.id, lambda row: row.style.id):
            assert largest_difference(rows, shares, value_of, group_of) <= 15
    of_model = largest_difference(rows, languages, lambda row: row.language, lambda row: row.model)
    assert of_model <= (1 if models["b"] == 1 != models["a"] - 1 else 25)


@pytest.mark.parametrize(
    "shares", [{"a": 1, "b": 1}, {"a": 3, "b": 1}, {"a": 67, "b": 33}, {"a": 7, "b": 3}, {"a": 5, "b": 3, "c": 2}]
)
def test_a_value_keeps_its_share_at_every_length(shares):
    rows = rows_of(make(shares), 1000)
    for num in range(1, 1000):
        assert largest_difference(rows[:num], shares, lambda row: row.model) < 2 - (len(shares) == 2)


def test_a_rows_model_and_language_depend_on_nothing_but_the_seed_and_the_row():
    shares = {"a": 3, "b": 1}
    plan = make(shares, {"en": 1, "de": 1})
    assert [(row.model, row.language) for row in rows_of(plan, 50)] == [
        (row.model, row.language) for row in (plan_row(plan, number, 2) for number in range(50))
    ]
    assert {row.model for row in rows_of(make(shares, seed=3), 50)} == {"a", "b"}


def test_a_plan_without_shares_names_neither_and_is_the_same_otherwise():
    plain, dealt = plan_row(make(), 17), plan_row(make({"a": 1, "b": 1}, {"de": 1}), 17)
    assert (plain.model, plain.language) == ("", "")
    assert dealt.language == "de"
    assert (plain.opening, plain.persona, plain.seed) == (dealt.opening, dealt.persona, dealt.seed)


def test_a_word_spreads_its_values():
    assert make_deal("model", {"a": 3, "b": 1}, turn=1).word == ("a", "a", "b", "a")
    assert make_deal("model", {"a": 1}, turn=1).word == ("a",)
