"""`compare`: sampling of the reference, every field of the report, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from explorer.camera import Cameras, unproject
from explorer.errors import ComparisonError
from explorer.metrics import compare
from explorer.metrics.depth import depth_error
from explorer.metrics.points import point_error
from explorer.metrics.pose import auc, pair_errors
from explorer.reconstruction import Reconstruction

FRAMES = 9


def room(frames=FRAMES, size=(24, 32), sky=True):
    rng = np.random.default_rng(0)
    height, width = size
    rotation = Rotation.from_euler("y", np.arange(frames)[:, None] * 2.0, degrees=True).as_matrix()
    translation = np.stack([np.arange(frames) * 0.1, *np.zeros((2, frames))], axis=1)[:, :, None]
    intrinsics = np.array([[30.0, 0, width / 2], [0, 30, height / 2], [0, 0, 1]])
    cameras = Cameras(
        np.concatenate([rotation, translation], axis=2), np.tile(intrinsics, (frames, 1, 1)), size
    )
    depth = rng.uniform(1, 3, size=(frames, height, width)).astype(np.float32)
    if sky:
        depth[:, :4] = 0.0
    return Reconstruction(
        frames=np.arange(frames),
        depth=depth,
        points=unproject(depth, cameras),
        confidence=(depth > 0).astype(np.float32),
        cameras=cameras,
        source="exact",
        provenance={"geometry": "room"},
    ).normalized()


def guess(reference, frames=(0, 1, 5), size=(12, 16), seed=1):
    """A noisy prediction in another frame and scale."""
    rng = np.random.default_rng(seed)
    sampled = reference.at_frames(np.array(frames)).resized(*size)
    noise = rng.normal(scale=0.05, size=sampled.points.shape).astype(np.float32)
    turn = Rotation.from_euler("xyz", rng.normal(scale=1.0, size=(len(frames), 3)), degrees=True)
    pose = sampled.cameras.cam_from_world.copy()
    pose[:, :, :3] = turn.as_matrix() @ pose[:, :, :3]
    return replace(
        sampled,
        depth=sampled.depth * np.float32(2) + np.float32(0.1),
        points=sampled.points * np.float32(2) + noise,
        confidence=np.ones_like(sampled.confidence),
        cameras=replace(sampled.cameras, cam_from_world=pose),
        source="guess",
    )


def test_a_copy_of_the_reference_has_no_error():
    reference = room()
    report = compare(reference.at_frames(np.array([0, 1, 5])), reference)
    assert report.point_error < 1e-6
    assert report.depth_error < 1e-6
    assert report.auc5 == pytest.approx(1.0, abs=1e-5)
    assert report.auc30 == pytest.approx(1.0, abs=1e-5)
    assert report.alignment.scale == pytest.approx(1.0)
    assert report.depth_scale == pytest.approx(1.0)


def test_every_number_is_that_of_the_metric_on_the_sampled_reference():
    reference = room()
    prediction = guess(reference)
    report = compare(prediction, reference)
    sampled = reference.at_frames(prediction.frames).resized(*prediction.size)
    weights = sampled.confidence.astype(np.float64)
    points = point_error(prediction.points, sampled.points, weights)
    depth = depth_error(prediction.depth, sampled.depth, sampled.valid)
    poses = pair_errors(prediction.cameras.cam_from_world, sampled.cameras.cam_from_world).worst
    assert report.point_error == points.error > 0
    assert report.depth_error == depth.error > 0
    assert report.depth_scale == depth.scale
    assert (report.auc5, report.auc30) == (auc(poses, 5), auc(poses, 30))
    assert 0 < report.auc5 < report.auc30 < 1
    np.testing.assert_array_equal(report.point_error_map, points.map)
    np.testing.assert_array_equal(report.depth_error_map, depth.map)
    assert report.provenance["prediction"]["source"] == "guess"
    assert report.provenance["reference"]["geometry"] == "room"
    assert report.provenance["coverage"] == 1.0


def test_frames_of_the_report_average_to_its_total():
    reference = room()
    prediction = guess(reference)
    report = compare(prediction, reference)
    assert [row["frame"] for row in report.per_frame] == [0.0, 1.0, 5.0]
    # Every frame has the same number of known pixels here, so the plain mean is the total.
    for name in ("point_error", "depth_error"):
        mean = np.mean([row[name] for row in report.per_frame])
        assert mean == pytest.approx(getattr(report, name), rel=1e-9)


def test_error_maps_are_nan_on_the_sky_and_nowhere_else():
    reference = room()
    prediction = guess(reference)
    report = compare(prediction, reference)
    sky = ~reference.at_frames(prediction.frames).resized(*prediction.size).valid
    assert sky.any()
    np.testing.assert_array_equal(np.isnan(report.point_error_map), sky)
    np.testing.assert_array_equal(np.isnan(report.depth_error_map), sky)


def test_pixels_that_the_prediction_does_not_know_are_left_out_and_counted():
    reference = room(sky=False)
    prediction = guess(reference)
    half = prediction.confidence.copy()
    half[:, :, :8] = 0.0
    report = compare(replace(prediction, confidence=half), reference)
    assert report.provenance["coverage"] == 0.5
    np.testing.assert_array_equal(np.isnan(report.point_error_map), half == 0)


def test_a_similarity_of_the_whole_prediction_changes_no_metric():
    reference = room()
    prediction = guess(reference)
    turn = Rotation.from_euler("xyz", [10, 80, -30], degrees=True).as_matrix()
    shift = np.array([1.0, -2.0, 0.5])
    pose = prediction.cameras.cam_from_world.copy()
    pose[:, :, :3] = prediction.cameras.cam_from_world[:, :, :3] @ turn.T
    pose[:, :, 3] = 3 * prediction.cameras.cam_from_world[:, :, 3] - pose[:, :, :3] @ shift
    moved = replace(
        prediction,
        depth=3 * prediction.depth.astype(np.float64),
        points=3 * prediction.points.astype(np.float64) @ turn.T + shift,
        cameras=replace(prediction.cameras, cam_from_world=pose),
    )
    before, after = compare(prediction, reference), compare(moved, reference)
    for name in ("point_error", "depth_error", "auc5", "auc30"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-6)


def test_one_frame_has_no_pose_score():
    reference = room()
    report = compare(guess(reference, frames=(0,)), reference)
    assert np.isnan(report.auc5)
    assert np.isnan(report.auc30)
    assert np.isfinite(report.point_error)


def test_a_frame_that_the_reference_lacks_is_named():
    reference = room()
    prediction = replace(guess(reference), frames=np.array([0, 1, 40]))
    with pytest.raises(ComparisonError, match=r"no frames \[40\]"):
        compare(prediction, reference)


def test_nothing_in_common_is_an_error_and_not_a_perfect_score():
    reference = room()
    prediction = guess(reference)
    with pytest.raises(ComparisonError, match="no pixel is known"):
        compare(replace(prediction, confidence=0 * prediction.confidence), reference)


def test_broken_cameras_are_refused():
    reference = room()
    prediction = guess(reference)
    pose = prediction.cameras.cam_from_world.copy()
    pose[1] = np.nan
    broken = replace(prediction, cameras=replace(prediction.cameras, cam_from_world=pose))
    with pytest.raises(ComparisonError, match="camera is not a finite"):
        compare(broken, reference)
