"""Intervals: over clusters, seeded, and right where they can be known."""

import numpy as np
import pytest

from nanosft.evaluate.statistics import bootstrap_mean, bootstrap_ratio


def test_the_interval_of_independent_values_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400).tolist()
    found = bootstrap_mean(values, range(400))
    assert found is not None
    expected = 1.96 * np.std(values) / 20
    assert found.mean == pytest.approx(np.mean(values))
    assert found.high - found.mean == pytest.approx(expected, rel=0.1)
    assert found.mean - found.low == pytest.approx(expected, rel=0.1)


def test_values_of_one_cluster_are_one_draw() -> None:
    values = np.random.default_rng(1).normal(0.0, 1.0, 50).tolist()
    alone = bootstrap_mean(values, range(50))
    repeated = bootstrap_mean(values * 4, [*range(50)] * 4)
    assert alone is not None
    assert repeated is not None
    assert (repeated.low, repeated.high) == pytest.approx((alone.low, alone.high))


def test_equal_seeds_are_equal_and_a_constant_has_no_width() -> None:
    values = np.random.default_rng(2).normal(0.0, 1.0, 20).tolist()
    assert bootstrap_mean(values, range(20)) == bootstrap_mean(values, range(20))
    assert bootstrap_mean(values, range(20)) != bootstrap_mean(values, range(20), seed=1)
    constant = bootstrap_mean([0.5, 0.5], "ab")
    assert constant is not None
    assert (constant.low, constant.mean, constant.high) == (0.5, 0.5, 0.5)


def test_a_ratio_weighs_by_its_denominators() -> None:
    found = bootstrap_ratio([10.0, 1.0], [5.0, 1.0], "ab")
    assert found is not None
    assert found.mean == pytest.approx(11 / 6)
    assert (found.low, found.high) == (1.0, 2.0)


def test_of_nothing_there_is_no_interval() -> None:
    assert bootstrap_mean([], []) is None
    assert bootstrap_ratio([1.0], [0.0], "a") is None
