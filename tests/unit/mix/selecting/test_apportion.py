from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosft.errors import ConfigError
from nanosft.mix.selecting.apportion import Demand, apportion, fill_gap, largest_remainder

weights = st.lists(st.integers(1, 10_000).map(Fraction), min_size=1, max_size=8)


@given(weights, st.integers(0, 100_000))
def test_seats_sum_to_the_total_and_are_less_than_one_off(parts: list[Fraction], total: int):
    seats = largest_remainder(parts, total)
    assert sum(seats) == total
    assert all(abs(seat - part * total / sum(parts)) < 1 for seat, part in zip(seats, parts, strict=True))


def test_a_decimal_ratio_is_exact():
    demands = [Demand("a", 10**6, ratio=0.3), Demand("b", 10**6, ratio=0.7)]
    assert apportion(demands, synthetic_share=None, total=1000) == [300, 700]


def test_without_a_total_the_scarcest_decides():
    demands = [Demand("a", 300, ratio=0.3), Demand("b", 10_000, ratio=0.7)]
    assert apportion(demands, synthetic_share=None, total=None) == [300, 700]
    assert apportion(demands, synthetic_share=None, total=None, max_epochs=2.0) == [600, 1400]


def test_the_synthetic_share_is_one_number():
    demands = [Demand("a", 100, synthetic=True), Demand("b", 50), Demand("c", 150)]
    amounts = apportion(demands, synthetic_share=0.4, total=None)
    assert amounts[0] / sum(amounts) == pytest.approx(0.4, abs=0.005)
    assert amounts[2] == pytest.approx(3 * amounts[1], abs=2)


def test_sizes_count_where_nothing_is_said():
    assert apportion([Demand("a", 7), Demand("b", 5)], synthetic_share=None, total=None) == [7, 5]
    assert apportion([Demand("a", 70), Demand("b", 50)], synthetic_share=None, total=12) == [7, 5]


def test_epochs_oversample_by_fractions():
    assert apportion([Demand("a", 10, epochs=2.5), Demand("b", 5, epochs=1)], synthetic_share=None, total=None) == [
        25,
        5,
    ]


def test_the_rest_fills_the_total():
    demands = [Demand("a", 10, epochs=2), Demand("b", 100, ratio=0.25), Demand("c", 500, rest=True)]
    assert apportion(demands, synthetic_share=None, total=200) == [20, 50, 130]


@pytest.mark.parametrize(
    ("demands", "total", "message"),
    [
        ([Demand("a", 0, ratio=1), Demand("b", 5, ratio=1)], 10, "'a' has no train rows left"),
        ([Demand("a", 10, epochs=2), Demand("b", 5, ratio=1)], 10, "more than the total of 10"),
        ([Demand("a", 10, ratio=0.5), Demand("b", 5, rest=True)], 100, "'b' has 5 where 50 are needed"),
    ],
)
def test_a_mixture_that_cannot_be_met_says_why(demands: list[Demand], total: int, message: str):
    with pytest.raises(ConfigError, match=message):
        apportion(demands, synthetic_share=None, total=total)


@given(
    st.lists(st.integers(0, 5000), min_size=2, max_size=6).filter(all),
    st.floats(0.01, 0.99),
    st.one_of(st.none(), st.integers(1, 10_000)),
)
def test_a_synthetic_share_is_met_to_one_unit(sizes: list[int], share: float, total: int | None):
    demands = [Demand(str(i), size, synthetic=i == 0) for i, size in enumerate(sizes)]
    amounts = apportion(demands, synthetic_share=share, total=total)
    assert abs(amounts[0] - Fraction(repr(share)) * sum(amounts)) < 1
    if total is None:
        assert all(amount <= size for amount, size in zip(amounts, sizes, strict=True))


@given(st.integers(0, 500), st.lists(st.integers(0, 100), max_size=50))
def test_a_gap_is_left_smaller_than_any_row_that_would_help(gap: int, rows: list[int]):
    chosen = fill_gap(gap, rows)
    assert len(set(chosen)) == len(chosen)
    left = abs(gap - sum(rows[i] for i in chosen))
    over = sum(rows[i] for i in chosen) > gap
    others = [rows[i] for i in range(len(rows)) if i not in chosen]
    assert over or all(abs(left - weight) >= left for weight in others)
