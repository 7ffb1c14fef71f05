"""Depth error against a loop with the standard library's median."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from explorer.errors import ComparisonError
from explorer.metrics.depth import depth_error


def scene(seed=0):
    rng = np.random.default_rng(seed)
    reference = rng.uniform(1, 5, size=(3, 4, 6))
    reference[1, :2] = 0.0
    predicted = 0.3 * reference * rng.uniform(0.8, 1.3, size=reference.shape) + 0.01
    return predicted, reference, reference > 0


@pytest.mark.parametrize("seed", range(3))
def test_depth_error_equals_a_loop_over_pixels(seed):
    predicted, reference, known = scene(seed)
    pairs = [
        (float(d), float(g))
        for d, g in zip(predicted.ravel(), reference.ravel(), strict=True)
        if g > 0
    ]
    scale = statistics.median(g / d for d, g in pairs)
    expected = statistics.fmean(abs(scale * d - g) for d, g in pairs)
    found = depth_error(predicted, reference, known)
    assert found.scale == pytest.approx(scale)
    assert found.error == pytest.approx(expected)


@pytest.mark.parametrize("factor", [1e-3, 2.0, 1e4])
def test_scaling_the_prediction_changes_nothing_but_the_scale(factor):
    predicted, reference, known = scene()
    before = depth_error(predicted, reference, known)
    after = depth_error(factor * predicted, reference, known)
    assert after.error == pytest.approx(before.error, rel=1e-12)
    assert after.scale * factor == pytest.approx(before.scale, rel=1e-12)


def test_a_scale_that_drifts_between_frames_costs():
    _, reference, known = scene()
    drifting = reference * np.array([0.5, 1.0, 2.0])[:, None, None]
    assert depth_error(3 * reference, reference, known).error < 1e-12
    assert depth_error(drifting, reference, known).error > 0.1


def test_a_depth_that_is_not_positive_counts_in_the_mean_but_not_in_the_scale():
    reference = np.array([[[1.0, 2.0, 4.0]]])
    predicted = np.array([[[1.0, 2.0, -4.0]]])
    found = depth_error(predicted, reference, reference > 0)
    assert found.scale == 1.0
    assert found.error == pytest.approx(8 / 3)


def test_the_map_is_nan_exactly_where_nothing_is_known():
    predicted, reference, known = scene()
    np.testing.assert_array_equal(np.isnan(depth_error(predicted, reference, known).map), ~known)


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "not a finite"), (0.0, "no predicted depth is positive")]
)
def test_a_useless_prediction_is_refused(value, message):
    _, reference, known = scene()
    with pytest.raises(ComparisonError, match=message):
        depth_error(np.full(reference.shape, value), reference, known)


def test_nothing_known_is_an_error():
    predicted, reference, known = scene()
    with pytest.raises(ComparisonError, match="no pixel is known"):
        depth_error(predicted, reference, known & False)
