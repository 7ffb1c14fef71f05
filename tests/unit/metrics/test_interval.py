"""Intervals against scipy and against their own promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from explorer.metrics import mean_interval, paired_interval
from explorer.metrics.interval import bootstrap_means, range_of


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


def test_one_seed_has_the_interval_of_its_clips_and_pairs_that_of_their_differences() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 30))
    means = bootstrap_means([a[None], b[None]])
    alone, paired = mean_interval(a), paired_interval(a, b)
    assert range_of(means[0]) == pytest.approx((alone.low, alone.high))
    assert range_of(means[0] - means[1]) == pytest.approx((paired.low, paired.high))


def test_seeds_that_disagree_widen_the_interval_and_equal_ones_do_not() -> None:
    clips = np.random.default_rng(0).normal(size=40)

    def width(offsets: list[float]) -> float:
        low, high = range_of(bootstrap_means([clips + np.array(offsets)[:, None]])[0])
        return high - low

    assert width([0.0, 0.0, 0.0]) == pytest.approx(width([0.0]), rel=0.05)
    assert width([-1.0, 0.0, 1.0]) > 2 * width([0.0])


@pytest.mark.parametrize(
    "samples",
    [[], [np.zeros((1, 1))], [np.zeros((1, 3)), np.zeros((1, 4))], [np.full((1, 3), np.nan)]],
)
def test_samples_without_pairs_of_finite_values_have_no_bootstrap(
    samples: list[np.ndarray],
) -> None:
    with pytest.raises(ValueError, match="need"):
        bootstrap_means(samples)


def test_resamples_do_not_depend_on_what_was_asked_before() -> None:
    values = np.random.default_rng(0).random((3, 5))
    first = bootstrap_means([values], resamples=50)
    picks = np.random.default_rng(0)
    clips = picks.integers(5, size=(50, 5))
    seeds = picks.integers(3, size=(50, 3))
    by_hand = [
        values[chosen].mean(axis=0)[taken].mean()
        for chosen, taken in zip(seeds, clips, strict=True)
    ]
    np.testing.assert_allclose(first[0], by_hand)
    bootstrap_means([values[:, :4]], resamples=50)
    for _ in range(2):
        np.testing.assert_array_equal(bootstrap_means([values], resamples=50), first)
