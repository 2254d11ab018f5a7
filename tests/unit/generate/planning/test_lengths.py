"""Long talks: what a bound on messages changes in a plan, and what it leaves as it was."""

from collections import Counter
from dataclasses import replace

import pytest

from nanosft.errors import ConfigError
from nanosft.generate.planning import Plan, make_plan, plan_row, read_dimensions
from nanosft.generate.planning.dimensions import Dimensions
from nanosft.knowledge import read_knowledge
from tests.stub_provider import KNOWLEDGE

NUM = 19 * 40
UNCHANGED = ("topic", "persona", "style", "opening", "seed", "user", "system")


def plan(max_messages: int | None = None, dimensions: Dimensions | None = None) -> Plan:
    return make_plan(dimensions or read_dimensions(), read_knowledge(KNOWLEDGE), seed=3, max_messages=max_messages)


def test_long_talks_alone_get_longer_and_their_lengths_have_equal_shares():
    bounded, free = plan(60), plan()
    lengths: Counter[int] = Counter()
    for number in range(NUM):
        row, before = plan_row(bounded, number), plan_row(free, number)
        assert [getattr(row, name) for name in UNCHANGED] == [getattr(before, name) for name in UNCHANGED]
        assert row.dynamic.id == before.dynamic.id
        if before.num_messages < 20:
            assert row == before
            continue
        lengths[row.num_messages] += 1
        assert len(row.dynamic.moves) * 2 == row.num_messages
        assert row.dynamic.moves[:9] == before.dynamic.moves[:9]
        assert row.dynamic.moves[-1] == before.dynamic.moves[-1]
        assert len({fact.id for fact in row.facts}) == len(row.facts) >= 1
    assert lengths == {24: 10, 36: 10, 48: 10, 60: 10}
    assert (bounded.most_messages, free.most_messages) == (60, 20)
    assert bounded.mean_messages - free.mean_messages == pytest.approx((42 - 20) / 19)


def test_a_bound_leaves_out_what_is_longer_and_the_rest_is_balanced_as_before():
    short = plan(6)
    counts = Counter(plan_row(short, number).dynamic.id for number in range(len(short.dynamics) * 10))
    assert set(counts.values()) == {10}
    assert short.most_messages == 6
    assert plan(20).dynamics == plan(22).dynamics == plan().dynamics
    with pytest.raises(ConfigError, match="--max-messages 2: every dynamic of the dimensions is longer"):
        plan(2, _without(2))


def test_a_bound_that_no_dynamic_can_reach_is_refused():
    with pytest.raises(ConfigError, match="--max-messages 40: no dynamic of the dimensions is a long talk"):
        plan(40, _without(20))


@pytest.mark.parametrize(("bound", "most"), [(60, 20), (20, 20), (6, 6), (None, 20)])
def test_rows_that_are_added_for_a_fact_stay_short_and_within_the_bound(bound, most):
    filled = replace(plan(bound), fills=dict.fromkeys(range(38), plan().knowledge.facts[0].id))
    assert max(plan_row(filled, number).num_messages for number in range(38)) == most


def _without(num_messages: int) -> Dimensions:
    dimensions = read_dimensions()
    kept = tuple(item for item in dimensions.dynamics if item.num_messages != num_messages)
    return dimensions.model_copy(update={"dynamics": kept})
