"""Models and languages are dealt by shares: evenly by themselves, with topics, and whatever the number of rows."""

import hashlib
import random
from collections import Counter
from math import lcm

import pytest

from nanosft.generate.plan_record import go_on_with
from nanosft.generate.planning import make_plan, plan_row, read_dimensions
from nanosft.generate.planning.balancing import Balancer
from nanosft.generate.planning.deals import make_deal
from nanosft.generate.records import PlanRecord
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
            assert largest_difference(rows, shares, value_of, group_of) <= 4
    assert largest_difference(rows, languages, lambda row: row.language, lambda row: row.model) <= 4


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


def test_personas_and_dynamics_are_as_even_far_out():
    shares, begin = {"a": 1, "b": 1}, 40_000_000
    plan = make(shares)
    rows = [plan_row(plan, row) for row in range(begin, begin + 1000)]
    for group_of in (lambda row: row.persona.id, lambda row: row.dynamic.id):
        assert largest_difference(rows, shares, lambda row: row.model, group_of) <= 6


@pytest.mark.parametrize("num_topics", [5, 8])
@pytest.mark.parametrize("word", ["ab", "abc", "aab", "aabab", "ababbabbab"])
def test_a_block_keeps_each_place_once_in_each_run_and_topic(num_topics, word):
    size = len(word)
    places = [(row + row // lcm(num_topics, size)) % size for row in range(num_topics * size)]
    balancer = Balancer(word, num_topics, 7)
    draw = random.Random(1)
    for _ in range(3):
        found = balancer.balance(places, [(draw.randrange(3), draw.randrange(3, 7)) for _ in places])
        for first in range(0, len(found), size):
            assert sorted(found[first : first + size]) == list(range(size))
        for topic in range(num_topics):
            assert sorted(found[topic::num_topics]) == list(range(size))


def test_a_block_is_nearer_to_the_shares_of_its_groups_than_it_was():
    places = [(row + row // 48) % 2 for row in range(96)]
    groups = [(row % 14,) for row in range(96)]

    def unevenness(found):
        pairs = Counter(zip(found, (group for (group,) in groups), strict=False))
        return max(abs(pairs[0, group] - pairs[1, group]) for group in range(14))

    assert unevenness(places[:48]) > 2
    found = Balancer("ab", 48, 14).balance(places, groups)
    assert unevenness(found[:48]) <= 2
    assert unevenness(found) <= 2


def test_a_plan_begun_by_an_earlier_version_goes_on_in_its_dealing():
    new = make({"a": 1, "b": 1}, {"en": 1, "de": 1})
    begun = PlanRecord(NUM, {"seed": 0}, ())
    old = go_on_with(new, [begun])
    assert [(row.model, row.language) for row in rows_of(old, 200)] != [
        (r.model, r.language) for r in rows_of(new, 200)
    ]
    assert go_on_with(new, []) is go_on_with(new, [PlanRecord(NUM, {"dealing": 2}, ())]) is new
    digest = hashlib.sha256("".join(row.model + row.language for row in rows_of(old, 500)).encode()).hexdigest()
    assert digest == "0c351885378145b9c344a887bd41e0f89e1ad6ec3179c29fecae2cd5454c59b2"


def test_a_word_spreads_its_values():
    assert make_deal("model", {"a": 3, "b": 1}, turn=1, against={}).word == ("a", "a", "b", "a")
    assert make_deal("model", {"a": 1}, turn=1, against={}).word == ("a",)
