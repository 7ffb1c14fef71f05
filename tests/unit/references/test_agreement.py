"""Judges against each other, and each against itself."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from explorer import references
from explorer.camera import Cameras, unproject
from explorer.clip import load_clip
from explorer.errors import ComparisonError
from explorer.metrics import compare
from explorer.metrics.points import point_error
from explorer.reconstruction import Reconstruction
from explorer.references import agreement
from explorer.references.agreement import agree, consistency, without

CLIPS = Path(__file__).resolve().parents[3] / "assets" / "clips"
SIZE = (48, 80)
FRAMES = 6
BOX = (slice(18, 30), slice(30, 46))
"""Where a box at depth 2 stands before a wall at depth 4, in the first frame."""


def sliding(*, moving: bool = False, shift: float = 0.05, sky: int = 0) -> Reconstruction:
    """A camera slides right before a wall with a box; a moving box keeps its place in the picture.

    The box stands far enough before the wall that what it hides is hidden, not off.
    """
    height, width = SIZE
    focal = 60.0
    matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    pose = np.tile(np.eye(3, 4), (FRAMES, 1, 1))
    pose[:, 0, 3] = -shift * np.arange(FRAMES)
    depth = np.full((FRAMES, height, width), 4.0, dtype=np.float32)
    for frame in range(FRAMES):
        gone = 0 if moving else round(focal * shift * frame / 2)
        depth[frame, BOX[0], BOX[1].start - gone : BOX[1].stop - gone] = 2.0
    depth[:, :sky] = 0.0
    cameras = Cameras(pose, np.tile(matrix, (FRAMES, 1, 1)), SIZE)
    return Reconstruction(
        frames=np.arange(FRAMES),
        depth=depth,
        points=unproject(depth, cameras),
        confidence=(depth > 0).astype(np.float32),
        cameras=cameras,
        source="sliding",
    ).normalized()


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


def test_a_consistency_below_the_measured_limit_is_called_low() -> None:
    assert not agreement.summary(sliding())["low"]
    assert agreement.summary(sliding(shift=0.3, moving=True))["low"] == (
        agreement.summary(sliding(shift=0.3, moving=True))["mean"] < agreement.LOW
    )


def test_pixels_that_one_judge_does_not_know_are_no_disagreement() -> None:
    found = agree(sliding(), sliding(sky=5))
    assert not found.disagree[:, :5].any()
    both = sliding(sky=5)
    assert not agree(both, sliding()).disagree[:, :5].any()


def test_judges_without_a_frame_in_common_cannot_be_compared() -> None:
    late = replace(sliding(), frames=np.arange(10, 10 + FRAMES))
    with pytest.raises(ComparisonError):
        agree(sliding(), late)


def test_static_geometry_confirms_itself_and_occlusions_do_not_count() -> None:
    found = consistency(sliding(sky=4), pixels=10**6)
    assert found.per_frame.min() > 0.97
    assert found.mean == pytest.approx(float(found.per_frame.mean()))
    assert (found.judged > 1000).all()


def test_what_moves_is_noticed() -> None:
    still = consistency(sliding(shift=0.3), pixels=10**6).mean
    found = consistency(sliding(shift=0.3, moving=True), pixels=10**6).mean
    # the box is 5 % of the picture and two thirds of it are missed where it should have gone
    assert found < still - 0.02


def test_wrong_cameras_are_noticed() -> None:
    scene = sliding(shift=0.3)
    pose = scene.cameras.cam_from_world.copy()
    pose[3, 2, 3] += 0.2  # a fifth of the unit too far back
    cameras = replace(scene.cameras, cam_from_world=pose)
    off = replace(scene, cameras=cameras, points=unproject(scene.depth, cameras))
    found = consistency(off)
    assert found.per_frame[3] < 0.1
    assert found.per_frame[[0, 5]].min() > 0.5
    assert found.mean < 0.8


def test_points_that_are_not_the_depth_are_noticed() -> None:
    scene = sliding()
    points = scene.points.copy()
    points[2] *= np.float32(1.2)
    found = consistency(replace(scene, points=points)).per_frame
    assert found[2] < 0.1
    assert found[[0, 1, 3, 4, 5]].min() > 0.95


def test_frames_that_see_nothing_of_each_other_have_no_score() -> None:
    scene = sliding()
    depth = scene.depth.copy()
    depth[4] = 0
    found = consistency(replace(scene, depth=depth))
    assert np.isnan(found.per_frame[4])
    assert found.judged[4] == 0
    assert np.isfinite(found.mean)


def test_sparse_references_have_no_consistency() -> None:
    with pytest.raises(ValueError, match="sparse"):
        consistency(replace(sliding(), sparse=True))


def test_a_shipped_clip_is_consistent_and_quick_to_judge() -> None:
    scene = references.reconstruct("exact", load_clip(CLIPS / "room-orbit-01.mp4"))
    assert scene is not None
    found = agreement.summary(scene)
    assert found["mean"] > 0.95
    assert [row["frame"] for row in found["per_frame"]] == list(range(17))
    spent = []
    for _ in range(3):
        begin = time.process_time()
        agreement.summary(scene)
        spent.append(time.process_time() - begin)
    assert min(spent) < 0.5
