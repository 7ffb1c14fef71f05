"""Judges against each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from sliding_scene import BOX, FRAMES, sliding

from explorer.camera import unproject
from explorer.errors import ComparisonError
from explorer.metrics import compare
from explorer.metrics.points import point_error
from explorer.reconstruction import Reconstruction
from explorer.references.agreement import agree, without


def moved(found: Reconstruction) -> Reconstruction:
    """The same geometry in another unit."""
    return replace(
        found,
        depth=found.depth * np.float32(3),
        points=found.points * np.float32(3),
        cameras=found.cameras.scaled(3.0),
    )


def test_judges_that_differ_by_a_similarity_agree() -> None:
    found = agree(moved(sliding()), sliding())
    assert found.share == 0.0
    assert not found.disagree.any()
    assert found.report.auc30 == pytest.approx(1.0, abs=1e-4)


def test_the_mask_marks_what_one_judge_sees_elsewhere_in_any_unit() -> None:
    one = sliding()
    depth = one.depth.copy()
    depth[2, BOX[0], :10] *= 1.5
    other = replace(one, depth=depth, points=unproject(depth, one.cameras))
    expected = np.zeros(depth.shape, dtype=bool)
    expected[2, BOX[0], :10] = True
    for judge in (one, moved(one)):
        found = agree(other, judge)
        np.testing.assert_array_equal(found.disagree, expected)
        assert found.share == pytest.approx(expected.mean())
    assert agree(other, moved(one)).threshold == pytest.approx(3 * agree(other, one).threshold)


def test_what_is_off_does_not_pull_the_rest_along() -> None:
    one = sliding()
    depth = one.depth.copy()
    depth[:, :, 50:] *= 3  # three eighths of the pixels
    other = replace(one, depth=depth, points=unproject(depth, one.cameras))
    expected = np.zeros(depth.shape, dtype=bool)
    expected[:, :, 50:] = True
    found = agree(moved(other), one)
    np.testing.assert_array_equal(found.disagree, expected)
    assert np.nanmax(found.distance[~expected]) < 1e-4
    # one similarity for all pixels, as metrics have it, puts the error everywhere
    assert np.median(found.report.point_error_map[~expected]) > found.threshold


def test_the_mask_is_that_of_distances_computed_otherwise() -> None:
    rng = np.random.default_rng(0)
    one = sliding(sky=3)
    noisy = one.points + rng.normal(scale=0.05, size=one.points.shape).astype(np.float32)
    found = agree(replace(one, points=noisy), one)
    both = one.valid
    # scipy's way to the best rotation, on the pixels that agree
    kept = both & ~found.disagree
    p, q = noisy[kept].astype(np.float64), one.points[kept].astype(np.float64)
    turn, _ = Rotation.align_vectors(q - q.mean(0), p - p.mean(0))
    p_turned = turn.apply(p - p.mean(0))
    scale = (p_turned * (q - q.mean(0))).sum() / (p_turned**2).sum()
    every = scale * turn.apply(noisy.reshape(-1, 3) - p.mean(0)) + q.mean(0)
    distance = np.linalg.norm(every - one.points.reshape(-1, 3), axis=1).reshape(both.shape)
    unit = np.linalg.norm(one.points[both] - one.cameras.centers[0], axis=-1).mean()
    assert found.threshold == pytest.approx(0.1 * unit, rel=1e-5)
    np.testing.assert_allclose(found.distance[both], distance[both], atol=1e-6)
    np.testing.assert_array_equal(found.disagree, both & (distance > found.threshold))
    assert 0.01 < found.share < 0.9
    assert found.share == pytest.approx(found.disagree.sum() / both.sum())


def test_without_disputed_pixels_metrics_are_those_of_the_others() -> None:
    one = sliding(sky=3)
    rng = np.random.default_rng(0)
    guess = replace(one, points=one.points + rng.normal(size=3) * one.depth[..., None] ** 2)
    disputed = rng.random(one.depth.shape) < 0.3
    found = compare(guess, without(one, disputed))
    left = one.valid & ~disputed
    np.testing.assert_array_equal(np.isfinite(found.point_error_map), left)
    by_hand = point_error(guess.points, one.points, left.astype(np.float64))
    assert found.point_error == pytest.approx(by_hand.error)
    assert found.per_frame[2]["point_error"] == pytest.approx(by_hand.map[2][left[2]].mean())
    assert (one.confidence > 0)[disputed & one.valid].all()  # the reference itself stays whole


def test_pixels_that_one_judge_does_not_know_are_no_disagreement() -> None:
    found = agree(sliding(), sliding(sky=5))
    assert not found.disagree[:, :5].any()
    both = sliding(sky=5)
    assert not agree(both, sliding()).disagree[:, :5].any()


def test_judges_without_a_frame_in_common_cannot_be_compared() -> None:
    late = replace(sliding(), frames=np.arange(10, 10 + FRAMES))
    with pytest.raises(ComparisonError):
        agree(sliding(), late)
