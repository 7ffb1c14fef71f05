"""Pose encodings: nine numbers per camera, as VGGT predicts them.

[translation (3), quaternion xyzw with the scalar last (4), field of view along the height and
along the width (radians)]. Translation and rotation are `cam_from_world` in OpenCV axes; the
principal point is the centre of the picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from explorer._typing import Float


def quaternion_from_matrix(
    rotation: Float[torch.Tensor, "*n 3 3"],
) -> Float[torch.Tensor, "*n 4"]:
    """Unit quaternions xyzw with w >= 0 of rotation matrices.

    Of the four ways to divide (by x, y, z or w) the one with the largest divisor is taken, so
    that no rotation is badly conditioned (Shepperd 1978).
    """
    r = rotation.flatten(-2)
    xx, xy, xz, yx, yy, yz, zx, zy, zz = r.unbind(-1)
    diagonal = torch.stack(
        [1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz, 1 + xx + yy + zz], dim=-1
    )
    x4, y4, z4, w4 = diagonal.unbind(-1)
    # row i holds 4 q_i (x, y, z, w)
    rows = torch.stack(
        [
            torch.stack([x4, xy + yx, xz + zx, zy - yz], dim=-1),
            torch.stack([xy + yx, y4, yz + zy, xz - zx], dim=-1),
            torch.stack([xz + zx, yz + zy, z4, yx - xy], dim=-1),
            torch.stack([zy - yz, xz - zx, yx - xy, w4], dim=-1),
        ],
        dim=-2,
    )
    best = diagonal.argmax(-1)[..., None, None].expand(*rows.shape[:-2], 1, 4)
    quaternion = F.normalize(rows.gather(-2, best).squeeze(-2), dim=-1)
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def matrix_from_quaternion(
    quaternion: Float[torch.Tensor, "*n 4"],
) -> Float[torch.Tensor, "*n 3 3"]:
    """Rotation matrices of quaternions xyzw of any length (a zero quaternion gives identity)."""
    x, y, z, w = quaternion.unbind(-1)
    two = 2.0 / (quaternion * quaternion).sum(-1).clamp_min(1e-12)
    rows = [
        1 - two * (y * y + z * z),
        two * (x * y - z * w),
        two * (x * z + y * w),
        two * (x * y + z * w),
        1 - two * (x * x + z * z),
        two * (y * z - x * w),
        two * (x * z - y * w),
        two * (y * z + x * w),
        1 - two * (x * x + y * y),
    ]
    return torch.stack(rows, dim=-1).reshape(*x.shape, 3, 3)


def encode_pose(
    cam_from_world: Float[torch.Tensor, "*n 3 4"],
    intrinsics: Float[torch.Tensor, "*n 3 3"],
    size: tuple[int, int],
) -> Float[torch.Tensor, "*n 9"]:
    """Pose encodings of cameras.

    Args:
        cam_from_world: (..., 3, 4) extrinsics [R|t], OpenCV.
        intrinsics: (..., 3, 3) in pixels of a picture of `size`; only the focal lengths are used.
        size: (height, width).
    """
    height, width = size
    fov_h = 2 * torch.atan(height / 2 / intrinsics[..., 1, 1])
    fov_w = 2 * torch.atan(width / 2 / intrinsics[..., 0, 0])
    quaternion = quaternion_from_matrix(cam_from_world[..., :3])
    fov = torch.stack([fov_h, fov_w], dim=-1)
    return torch.cat([cam_from_world[..., 3], quaternion, fov], dim=-1)


def decode_pose(
    encoding: Float[torch.Tensor, "*n 9"], size: tuple[int, int]
) -> tuple[Float[torch.Tensor, "*n 3 4"], Float[torch.Tensor, "*n 3 3"]]:
    """Cameras of pose encodings.

    Args:
        encoding: (..., 9) as described above; the quaternion need not have unit length.
        size: (height, width) of the picture that the intrinsics are for.

    Returns:
        `cam_from_world` (..., 3, 4) and intrinsics (..., 3, 3) in pixels, principal point at the
        centre. A field of view of zero gives an infinite focal length.
    """
    height, width = size
    rotation = matrix_from_quaternion(encoding[..., 3:7])
    extrinsics = torch.cat([rotation, encoding[..., :3, None]], dim=-1)
    fy = height / 2 / torch.tan(encoding[..., 7] / 2)
    fx = width / 2 / torch.tan(encoding[..., 8] / 2)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    entries = [fx, zero, one * (width / 2), zero, fy, one * (height / 2), zero, zero, one]
    return extrinsics, torch.stack(entries, dim=-1).reshape(*fx.shape, 3, 3)
