"""Point error against loops and an own Umeyama."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from explorer.errors import ComparisonError
from explorer.metrics.points import point_error


def scene(seed=0, shape=(2, 5, 6)):
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(*shape, 3)) + [0, 0, 3]
    predicted = reference + rng.normal(scale=0.2, size=reference.shape)
    confidence = rng.uniform(0.5, 2.0, size=shape)
    confidence[0, :2] = 0.0
    return predicted, reference, confidence


def brute_force(predicted, reference, confidence):
    known = [float(c) for c in confidence.ravel() if c > 0]
    cut = np.percentile(known, 75)
    pairs = [
        (p, q, c)
        for p, q, c in zip(
            predicted.reshape(-1, 3), reference.reshape(-1, 3), confidence.ravel(), strict=True
        )
        if c > 0
    ]
    source = np.array([p for p, _, c in pairs if c >= cut])
    target = np.array([q for _, q, c in pairs if c >= cut])
    x, y = source - source.mean(0), target - target.mean(0)
    turn, _ = Rotation.align_vectors(y, x)
    turned = turn.apply(x)
    scale = (turned * y).sum() / (x * x).sum()
    total = weight = 0.0
    for p, q, c in pairs:
        moved = scale * turn.apply(p - source.mean(0)) + target.mean(0)
        total += c * math.dist(moved, q)
        weight += c
    return total / weight


@pytest.mark.parametrize("seed", range(3))
def test_point_error_equals_a_loop_over_pixels(seed):
    predicted, reference, confidence = scene(seed)
    expected = brute_force(predicted, reference, confidence)
    assert point_error(predicted, reference, confidence).error == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("scale", [0.01, 3.0, 250.0])
def test_a_similarity_of_the_prediction_changes_nothing(scale):
    predicted, reference, confidence = scene()
    turn = Rotation.from_euler("xyz", [20, -50, 130], degrees=True).as_matrix()
    moved = scale * predicted @ turn.T + [5, -3, 2]
    before = point_error(predicted, reference, confidence)
    after = point_error(moved, reference, confidence)
    assert after.error == pytest.approx(before.error, rel=1e-9)
    np.testing.assert_allclose(after.map, before.map, rtol=1e-7)


def test_scaling_the_reference_scales_the_error():
    predicted, reference, confidence = scene()
    single = point_error(predicted, reference, confidence).error
    assert point_error(predicted, 4 * reference, confidence).error == pytest.approx(4 * single)


def test_the_map_is_nan_exactly_where_nothing_is_known():
    predicted, reference, confidence = scene()
    error_map = point_error(predicted, reference, confidence).map
    np.testing.assert_array_equal(np.isnan(error_map), confidence == 0)


def test_garbage_in_unknown_pixels_does_not_matter():
    predicted, reference, confidence = scene()
    spoiled, lost = predicted.copy(), reference.copy()
    spoiled[confidence == 0], lost[confidence == 0] = np.nan, np.inf
    clean = point_error(predicted, reference, confidence).error
    assert point_error(spoiled, lost, confidence).error == clean


def test_a_prediction_that_is_one_point_gets_the_mean_distance_to_the_centre():
    _, reference, _ = scene()
    ones = np.ones(reference.shape[:3])
    found = point_error(np.zeros_like(reference), reference, ones).error
    middle = reference.reshape(-1, 3).mean(0)
    expected = np.linalg.norm(reference.reshape(-1, 3) - middle, axis=1).mean()
    assert found == pytest.approx(expected)


def test_nothing_known_is_an_error():
    predicted, reference, confidence = scene()
    with pytest.raises(ComparisonError):
        point_error(predicted, reference, 0 * confidence)
