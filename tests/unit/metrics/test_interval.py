"""Intervals against scipy and against their own promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from explorer.metrics import mean_interval, paired_interval


def test_the_interval_is_close_to_students_for_many_normal_values():
    values = np.random.default_rng(0).normal(2.0, 1.0, size=200)
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, 199, loc=values.mean(), scale=stats.sem(values))
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)
    assert found.count == 200


def test_the_interval_equals_scipys_percentile_bootstrap_up_to_resampling_noise():
    values = np.random.default_rng(1).exponential(size=64)
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=9999, rng=0
    ).confidence_interval
    found = mean_interval(values)
    assert found.low == pytest.approx(expected.low, abs=0.02)
    assert found.high == pytest.approx(expected.high, abs=0.02)


def test_it_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        found = mean_interval(rng.normal(1.0, 1.0, size=64), resamples=400, seed=seed)
        hits += found.low <= 1.0 <= found.high
    assert 180 <= hits <= 199


def test_pairing_sees_a_small_difference_under_a_large_spread():
    rng = np.random.default_rng(0)
    difficulty = rng.uniform(0, 10, size=64)
    a, b = difficulty + 0.1 + rng.normal(scale=0.05, size=64), difficulty
    assert paired_interval(a, b).excludes_zero
    assert paired_interval(b, a).high < 0
    assert not mean_interval(a - difficulty.mean()).excludes_zero


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).normal(size=20)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)


@pytest.mark.parametrize("values", [[1.0], [], [1.0, float("nan")]])
def test_too_few_or_broken_values_are_refused(values):
    with pytest.raises(ValueError, match="two or more finite values"):
        mean_interval(values)


def test_pairs_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="equal lengths"):
        paired_interval([1.0, 2.0], [1.0, 2.0, 3.0])
