"""A plan is balanced at every length, and each row is a function of seed and number alone."""

from collections import Counter
from itertools import count, islice, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanosft.errors import ConfigError
from nanosft.generate.planning import Dimensions, Topic, cover, read_dimensions
from nanosft.generate.planning.coverage import PAIRS
from nanosft.generate.planning.dimensions import Dynamic, OtherTopics, Persona, Style
from nanosft.generate.planning.plan import Plan, make_plan, plan_row
from nanosft.knowledge import parse_knowledge, read_knowledge

BASE = Path(__file__).parents[4] / "knowledge" / "self_knowledge.md"


@pytest.fixture(scope="module")
def shipped() -> Plan:
    return make_plan(read_dimensions(), read_knowledge(str(BASE)), seed=0)


def make(
    num_topics: int,
    num_personas: int,
    num_dynamics: int,
    num_styles: int = 1,
    seed: int = 0,
    max_opening_share: float = 1.0,
) -> Plan:
    """A plan of these sizes over one fact."""
    names = [f"n{index}" for index in range(3)]
    topics = tuple(
        Topic(id=f"t{i}", category="c", sections=("a",), brief="b", subject=f"s{i}", ask=("a",), questions=(f"Q{i}?",))
        for i in range(num_topics)
    )
    dimensions = Dimensions(
        max_opening_share=max_opening_share,
        user_names=tuple(names),
        other_topics=OtherTopics(category="o", brief="b", ask=("a",), questions=("q",)),
        topics=topics,
        personas=tuple(
            Persona(id=f"p{i}", description="d", level="plain", reactions=("r",)) for i in range(num_personas)
        ),
        dynamics=tuple(
            Dynamic(id=f"d{i}", description="d", num_messages=2, moves=("ask",)) for i in range(num_dynamics)
        ),
        styles=tuple(Style(id=f"s{i}", description="d", first_messages=("{question}",)) for i in range(num_styles)),
    )
    return make_plan(dimensions, parse_knowledge("# Z\n## A\n- Z is a fact.\n", where="k"), seed=seed)


def spreads(plan: Plan, num_rows: int, *names: str) -> list[int]:
    """Most minus fewest rows of one value (or combination of values), after each row."""
    values = [tuple(getattr(plan, f"{name}s")) for name in names]
    counts = {tuple(item.id for item in items): 0 for items in product(*values)}
    at_count = Counter(counts.values())
    found = []
    for number in range(num_rows):
        row = plan_row(plan, number)
        key = tuple(getattr(row, name).id for name in names)
        at_count[counts[key]] -= 1
        counts[key] += 1
        at_count[counts[key]] += 1
        present = [times for times, num in at_count.items() if num]
        found.append(max(present) - min(present))
    return found


sizes = st.integers(1, 12)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes, sizes, st.integers(0, 2**40))
def test_every_value_is_had_equally_often_at_every_length(topics, personas, dynamics, styles, seed):
    plan = make(topics, personas, dynamics, styles, seed)
    for name in ("topic", "persona", "dynamic", "style"):
        assert max(spreads(plan, 150, name)) <= 1


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, sizes, st.integers(0, 2**40))
def test_pairs_with_a_topic_are_even_at_every_length(topics, personas, dynamics, seed):
    plan = make(topics, personas, dynamics, seed=seed)
    num_rows = 2 * topics * max(personas, dynamics) + 3
    assert max(spreads(plan, num_rows, "topic", "persona")) <= 1
    assert max(spreads(plan, num_rows, "topic", "dynamic")) <= 1


def test_dimensions_with_a_common_factor_do_not_move_in_step():
    plan = make(48, 12, 8)
    pairs = Counter((row.persona.id, row.dynamic.id) for row in (plan_row(plan, number) for number in range(2000)))
    assert len(pairs) == 96
    assert min(pairs.values()) >= 8


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**15))
def test_rows_far_out_are_as_balanced_as_the_first(seed, begin):
    plan = make(6, 4, 9, seed=seed)
    begin -= begin % 24
    pairs = Counter((row.topic.id, row.persona.id) for row in (plan_row(plan, begin + i) for i in range(24)))
    assert set(pairs.values()) == {1}


def test_a_row_depends_on_seed_and_number_alone(shipped):
    again = make_plan(read_dimensions(), read_knowledge(str(BASE)), seed=0)
    numbers = [977, 3, 10**9, 41]
    assert [plan_row(shipped, n) for n in numbers] == [plan_row(again, n) for n in numbers]


def test_another_seed_is_another_plan(shipped):
    other = make_plan(shipped.dimensions, shipped.knowledge, seed=1)
    same = sum(plan_row(shipped, n).first_message == plan_row(other, n).first_message for n in range(200))
    assert same < 20


def test_a_negative_seed_is_an_error(shipped):
    with pytest.raises(ConfigError, match="--seed -1"):
        make_plan(shipped.dimensions, shipped.knowledge, seed=-1)


def test_a_thousand_rows_of_the_shipped_plan(shipped):
    coverage = cover(shipped, 1000)
    for counts in coverage.marginals.values():
        assert max(counts.values()) - min(counts.values()) <= 1
    for name, (fewest, most) in coverage.pairs.items():
        if name.startswith("topic"):
            assert most - fewest <= 2
    assert len(coverage.pairs) == len(PAIRS)
    assert coverage.distinct_share >= 0.95
    assert coverage.most_common_opening[1] / 1000 <= shipped.dimensions.max_opening_share


@pytest.mark.parametrize("seed", [1, 7, 123_456_789])
def test_other_seeds_open_as_variously(shipped, seed):
    coverage = cover(make_plan(shipped.dimensions, shipped.knowledge, seed=seed), 1000)
    assert coverage.distinct_share >= 0.95


def test_too_few_first_messages_for_the_set_share_are_an_error():
    assert make(2, 3, 4, max_opening_share=0.03)
    with pytest.raises(ConfigError, match=r"style 's0' can make 38 first messages.*2\.63% of the rows"):
        make(2, 3, 4, max_opening_share=0.02)


def test_no_opening_exceeds_its_share_in_a_long_plan(shipped):
    num_rows = 20_000
    coverage = cover(shipped, num_rows)
    assert coverage.most_common_opening[1] / num_rows <= shipped.dimensions.max_opening_share
    assert coverage.num_distinct_openings > 0.9 * num_rows


def test_another_prompt_variant_has_the_cell_and_another_opening(shipped):
    differ = 0
    for number in range(200):
        row, other = plan_row(shipped, number), plan_row(shipped, number, 1)
        assert (row.cell, row.dynamic, row.style) == (other.cell, other.dynamic, other.style)
        assert row.seed != other.seed
        differ += row.first_message != other.first_message
    assert differ >= 198


def test_seeds_of_rows_fit_63_bits_and_differ(shipped):
    seeds = [plan_row(shipped, n, variant).seed for n in range(2000) for variant in (0, 1)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_plainest_questions_come_again(shipped):
    openings = Counter(plan_row(shipped, n).first_message.lower().strip("?. ") for n in range(1000))
    assert openings["who are you"] >= 5


def test_rows_with_a_turn_to_spare_may_begin_with_a_greeting_alone(shipped):
    rows = [plan_row(shipped, n) for n in range(1000)]
    alone = [row for row in rows if not row.opening.asks_at_once]
    assert len(alone) > 50
    assert all(row.num_messages > 4 for row in alone)
    assert all(row.opening.question not in row.first_message for row in alone)


def test_no_row_of_a_million_takes_long(shipped):
    for number in islice(count(10**12, 999_983), 50):
        assert plan_row(shipped, number).row == number
