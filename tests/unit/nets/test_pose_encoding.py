from __future__ import annotations

import torch
from scipy.spatial.transform import Rotation

from explorer.nets.pose import (
    decode_pose,
    encode_pose,
    matrix_from_quaternion,
    quaternion_from_matrix,
)


def rotations(count: int) -> torch.Tensor:
    spread = Rotation.random(count, random_state=0)
    turns = Rotation.from_euler(
        "xyz", [[180, 0, 0], [0, 180, 0], [0, 0, 180], [0, 0, 0]], degrees=True
    )
    return torch.from_numpy(Rotation.concatenate([spread, turns]).as_matrix())


def test_quaternions_agree_with_scipy_and_have_a_positive_scalar() -> None:
    matrices = rotations(200)
    found = quaternion_from_matrix(matrices)
    expected = torch.from_numpy(Rotation.from_matrix(matrices.numpy()).as_quat())
    agreement = (found * expected).sum(-1).abs()
    assert (found[:, 3] >= 0).all()
    torch.testing.assert_close(agreement, torch.ones_like(agreement))


def test_matrices_of_quaternions_of_any_length_agree_with_scipy() -> None:
    matrices = rotations(50)
    quaternions = torch.from_numpy(Rotation.from_matrix(matrices.numpy()).as_quat())
    torch.testing.assert_close(matrix_from_quaternion(-3.7 * quaternions), matrices)


def test_a_zero_quaternion_gives_the_identity() -> None:
    torch.testing.assert_close(matrix_from_quaternion(torch.zeros(4)), torch.eye(3))


def test_cameras_survive_encoding_and_decoding() -> None:
    matrices = rotations(6).reshape(2, 5, 3, 3)
    generator = torch.Generator().manual_seed(0)
    translation = torch.randn(2, 5, 3, 1, dtype=torch.float64, generator=generator)
    extrinsics = torch.cat([matrices, translation], dim=-1)
    intrinsics = torch.tensor([[60.0, 0, 32], [0, 50, 24], [0, 0, 1]], dtype=torch.float64).expand(
        2, 5, 3, 3
    )
    encoding = encode_pose(extrinsics, intrinsics, (48, 64))
    again, lenses = decode_pose(encoding, (48, 64))
    torch.testing.assert_close(again, extrinsics)
    torch.testing.assert_close(lenses, intrinsics)


def test_the_field_of_view_along_the_height_comes_first() -> None:
    extrinsics = torch.eye(4)[:3]
    intrinsics = torch.tensor([[32.0, 0, 32], [0, 48.0, 24], [0, 0, 1]])
    encoding = encode_pose(extrinsics, intrinsics, (48, 64))
    right_angle = torch.pi / 2
    assert encoding[8].item() == torch.tensor(right_angle).item()
    assert encoding[7] < right_angle
