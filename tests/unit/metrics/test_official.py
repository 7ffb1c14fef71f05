"""The published evaluation's variants against its own numbers (golden vectors) and libraries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.spatial.transform import Rotation

from explorer.metrics import official
from explorer.metrics.pose import all_pairs, rotation_angle

GOLDEN = Path(__file__).parents[2] / "golden" / "official-metrics.safetensors"
SIZE = (24, 32)


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def test_relative_pose_errors_equal_the_golden_ones(golden):
    found = [
        official.pair_errors(
            golden["output.pred_extrinsics"][sample], golden["output.norm_extrinsics"][sample]
        )
        for sample in range(2)
    ]
    assert found[0].pairs.tolist() == golden["output.pair_index"].tolist()
    rotation = np.concatenate([errors.rotation for errors in found])
    translation = np.concatenate([errors.translation for errors in found])
    np.testing.assert_allclose(rotation, golden["output.pair_rot_deg"], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(translation, golden["output.pair_trans_deg"], rtol=1e-4, atol=1e-3)


def test_angles_equal_the_golden_ones(golden):
    rotation = rotation_angle(golden["input.angle_rot_pred"], golden["input.angle_rot_gt"])
    translation = official.unsigned_angle(golden["input.angle_t_pred"], golden["input.angle_t_gt"])
    np.testing.assert_allclose(rotation, golden["output.angle_rot_deg"], rtol=1e-4, atol=0.05)
    np.testing.assert_allclose(translation, golden["output.angle_trans_deg"], rtol=1e-4, atol=0.05)


@pytest.mark.parametrize("threshold", [3, 5, 10, 30])
def test_auc_equals_the_golden_histograms(golden, threshold):
    worst = np.maximum(golden["output.angle_rot_deg"], golden["output.angle_trans_deg"])
    expected = golden[f"output.auc_from_hist30.{threshold}"][0]
    assert official.auc(worst, threshold) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("threshold", [3, 5, 10, 30])
def test_auc_of_poses_equals_what_the_camera_loss_logged(golden, threshold):
    worst = np.concatenate(
        [
            official.pair_errors(
                golden["output.pred_extrinsics"][sample], golden["output.norm_extrinsics"][sample]
            ).worst
            for sample in range(2)
        ]
    )
    expected = golden[f"output.camera.Auc_{threshold}"][0]
    assert official.auc(worst, threshold) == pytest.approx(expected, rel=1e-5)


def test_the_histogram_is_torchs():
    errors = np.random.default_rng(0).exponential(15.0, size=500)
    counts = torch.histc(torch.from_numpy(errors), bins=31, min=0, max=30).numpy()
    expected = np.cumsum(counts / 500)[:5].mean()
    assert official.auc(errors, 5) == pytest.approx(expected, rel=1e-12)


def test_aligned_point_error_and_alignment_equal_the_golden_ones(golden):
    for sample in range(2):
        error, alignment = official.aligned_point_error(
            golden["input.pred_world_points"][sample],
            golden["output.norm_world_points"][sample],
            golden["input.conf"][sample],
        )
        assert error == pytest.approx(golden["output.aligned_point_error"][sample], rel=1e-4)
        flat = np.concatenate(
            [[alignment.scale], alignment.rotation.ravel(), alignment.translation]
        )
        expected = golden["output.align_scale_R_t"][sample]
        np.testing.assert_allclose(flat, expected, rtol=1e-4, atol=1e-5)


def test_depth_error_equals_the_golden_one(golden):
    error = official.depth_error(
        golden["input.pred_depth"][..., 0],
        golden["output.norm_depth"][..., 0],
        golden["input.conf"],
    )
    assert error == pytest.approx(golden["output.depth.loss_depth"][0], rel=1e-5)


def test_pose_encodings_equal_the_golden_ones(golden):
    for sample in range(2):
        code = official.encode_poses(
            golden["output.norm_extrinsics"][sample], golden["input.intrinsics"][sample], SIZE
        )
        np.testing.assert_allclose(code, golden["output.gt_pose_enc"][sample], atol=1e-5)


@pytest.mark.parametrize(
    ("code", "pose", "intrinsics"),
    [
        ("output.gt_pose_enc", "output.gt_pose_enc_to_extrinsics", "gt_pose_enc_to_intrinsics"),
        ("input.pred_pose_enc_list.3", "output.pred_extrinsics", "pred_intrinsics"),
    ],
)
def test_decoded_poses_equal_the_golden_ones(golden, code, pose, intrinsics):
    for sample in range(2):
        found = official.decode_poses(golden[code][sample], SIZE)
        np.testing.assert_allclose(found[0], golden[pose][sample], rtol=1e-4, atol=1e-5)
        expected = golden[f"output.{intrinsics}"][sample]
        np.testing.assert_allclose(found[1], expected, rtol=1e-4, atol=1e-4)


def test_encoded_quaternions_are_scipys_at_all_angles():
    turns = Rotation.concatenate(
        [
            Rotation.random(50, random_state=0),
            Rotation.from_rotvec(np.pi * np.eye(3) * (1 - 1e-9)),
            Rotation.identity(1),
        ]
    )
    pose = np.concatenate([turns.as_matrix(), np.zeros((54, 3, 1))], axis=2)
    code = official.encode_poses(pose, np.tile(np.eye(3), (54, 1, 1)), SIZE)
    expected = turns.as_quat(canonical=True)
    np.testing.assert_allclose(code[:, 3:7], expected, atol=1e-7)


def test_the_official_relative_pose_differs_from_the_geometric_one_off_the_first_frame(golden):
    from explorer.metrics.pose import relative_poses

    pose = golden["output.norm_extrinsics"][0].astype(np.float64)
    pairs = all_pairs(4)
    theirs, ours = official.relative_poses(pose, pairs), relative_poses(pose, pairs)
    same = np.isclose(theirs, ours, atol=1e-5).all(axis=(1, 2))
    assert same.tolist() == [True, True, True, False, False, False]
