"""Pose errors against scipy's rotations, 4x4 matrices and a numeric integral."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from explorer.camera import Cameras
from explorer.metrics.pose import (
    all_pairs,
    auc,
    direction_angle,
    pair_errors,
    relative_poses,
    rotation_angle,
)


def poses(seed, count=5):
    rng = np.random.default_rng(seed)
    rotation = Rotation.from_rotvec(rng.normal(scale=0.5, size=(count, 3))).as_matrix()
    return np.concatenate([rotation, rng.normal(size=(count, 3, 1))], axis=2)


def nudge(matrices, seed, size=0.1):
    rng = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(rng.normal(scale=size, size=(len(matrices), 3))).as_matrix()
    moved = np.concatenate([turn @ matrices[:, :, :3], matrices[:, :, 3:]], axis=2)
    moved[:, :, 3] += rng.normal(scale=size, size=(len(matrices), 3))
    return moved


def square(matrix):
    return np.vstack([matrix, [0, 0, 0, 1]])


def test_pair_errors_equal_scipy_on_4x4_matrices():
    reference, predicted = poses(0), nudge(poses(0), 1)
    found = pair_errors(predicted, reference)
    for row, (i, j) in enumerate(itertools.combinations(range(5), 2)):
        a = square(predicted[j]) @ np.linalg.inv(square(predicted[i]))
        b = square(reference[j]) @ np.linalg.inv(square(reference[i]))
        turn = Rotation.from_matrix(a[:3, :3].T @ b[:3, :3]).magnitude()
        cosine = a[:3, 3] @ b[:3, 3] / np.linalg.norm(a[:3, 3]) / np.linalg.norm(b[:3, 3])
        assert found.pairs[row].tolist() == [i, j]
        assert found.rotation[row] == pytest.approx(np.degrees(turn), abs=1e-9)
        assert found.translation[row] == pytest.approx(np.degrees(np.arccos(cosine)), abs=1e-5)
        assert found.worst[row] == max(found.rotation[row], found.translation[row])


def test_the_relative_translation_points_from_camera_j_to_camera_i():
    cameras = Cameras(poses(3), np.tile(np.eye(3), (5, 1, 1)), (2, 2))
    pairs = all_pairs(5)
    relative = relative_poses(cameras.cam_from_world, pairs)
    for (i, j), pose in zip(pairs, relative, strict=True):
        towards = cameras.cam_from_world[j, :, :3] @ (cameras.centers[i] - cameras.centers[j])
        np.testing.assert_allclose(pose[:, 3], towards, atol=1e-12)


def test_moving_turning_and_scaling_the_predicted_world_changes_nothing():
    reference, predicted = poses(0), nudge(poses(0), 1)
    world = np.vstack([poses(9, 1)[0], [0, 0, 0, 1]])
    moved = np.stack([(square(pose) @ world)[:3] for pose in predicted])
    moved[:, :, 3] *= 7.0
    before = pair_errors(predicted, reference)
    after = pair_errors(moved, reference)
    np.testing.assert_allclose(after.rotation, before.rotation, atol=1e-9)
    np.testing.assert_allclose(after.translation, before.translation, atol=1e-9)


@pytest.mark.parametrize("degrees", [1e-6, 1e-3, 1.0, 90.0, 179.999])
def test_rotation_angle_is_exact_at_tiny_and_at_straight_angles(degrees):
    turn = Rotation.from_rotvec(np.radians(degrees) * np.array([0.6, 0.0, 0.8])).as_matrix()
    assert float(rotation_angle(np.eye(3), turn)) == pytest.approx(degrees, rel=1e-6)


def test_a_camera_that_goes_backwards_is_180_degrees_off():
    reference = np.tile(np.eye(3, 4), (2, 1, 1))
    reference[1, 2, 3] = -1.0
    backwards = reference.copy()
    backwards[1, 2, 3] = 1.0
    assert pair_errors(backwards, reference).translation.tolist() == [180.0]


def test_a_reference_that_only_turns_is_judged_by_rotation_alone():
    turn = Rotation.from_euler("y", [[0], [10], [20]], degrees=True).as_matrix()
    reference = np.concatenate([turn, np.full((3, 3, 1), 1e-8)], axis=2)
    drift = reference.copy()
    drift[:, :, 3] = np.random.default_rng(0).normal(size=(3, 3))
    found = pair_errors(drift, reference)
    assert np.isnan(found.translation).all()
    np.testing.assert_allclose(found.worst, 0.0, atol=1e-6)


def test_a_prediction_that_stands_still_misses_the_direction_completely():
    reference = np.tile(np.eye(3, 4), (2, 1, 1))
    reference[1, 0, 3] = 1.0
    still = np.tile(np.eye(3, 4), (2, 1, 1))
    assert pair_errors(still, reference).worst.tolist() == [180.0]


def test_direction_angle_is_signed_and_ignores_lengths():
    a = np.array([[1.0, 0, 0], [0, 1e-6, 0], [1, 1, 0]])
    b = np.array([[-5.0, 0, 0], [0, 3e4, 0], [1, 0, 0]])
    np.testing.assert_allclose(direction_angle(a, b), [180, 0, 45], atol=1e-12)


@pytest.mark.parametrize("threshold", [5, 30])
def test_auc_equals_a_fine_numeric_integral_of_recall(threshold):
    errors = np.random.default_rng(0).exponential(8.0, size=40)
    angles = (np.arange(200_000) + 0.5) / 200_000 * threshold
    recall = np.searchsorted(np.sort(errors), angles, side="right") / len(errors)
    assert auc(errors, threshold) == pytest.approx(recall.mean(), abs=1e-5)


def test_auc_is_one_for_perfect_poses_and_zero_beyond_the_threshold():
    assert auc(np.zeros(10), 5) == 1.0
    assert auc(np.full(10, 5.0), 5) == 0.0


def test_auc_of_no_pair_is_nan():
    assert np.isnan(auc(np.zeros(0), 30))
    assert len(pair_errors(np.eye(3, 4)[None], np.eye(3, 4)[None]).worst) == 0
