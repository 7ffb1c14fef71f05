"""Where the surface points of one frame truly appear in others, from a reference's geometry."""

from __future__ import annotations

from typing import Literal

import numpy as np

from explorer._typing import Float, Int
from explorer.camera import project
from explorer.reconstruction import Reconstruction

Status = Literal["visible", "occluded", "out of view", "unknown"]
STATUSES: tuple[Status, ...] = ("visible", "occluded", "out of view", "unknown")
VISIBLE, OCCLUDED, OUT_OF_VIEW, UNKNOWN = range(4)

DEPTH_TOLERANCE = 0.02  # a point this much behind the surface seen there still counts as on it


def true_matches(
    reference: Reconstruction | None,
    frame: int,
    pixels: Float[np.ndarray, "N 2"],
    targets: Int[np.ndarray, " K"],
    *,
    size: tuple[int, int],
) -> tuple[Float[np.ndarray, "K N 2"], Int[np.ndarray, "K N"]]:
    """Where the surface points under pixels of one frame appear in other frames.

    A pixel's point is its ray at the reference's nearest depth. It is occluded in a target frame
    when it lies over 2 % behind the farthest of the four depths around its projection: on a grazing
    surface neighbouring depths differ by more than that.

    Args:
        reference: geometry; None makes everything unknown.
        frame: frame of the clip that the pixels belong to.
        pixels: (N, 2) image points (x, y) in an image of `size`.
        targets: (K,) frames of the clip to look in.
        size: (height, width) of the image, the same for all frames.

    Returns:
        (K, N, 2) image points, NaN where out of view or unknown; (K, N) indices into `STATUSES`.
    """
    true = np.full((len(targets), len(pixels), 2), np.nan)
    status = np.full((len(targets), len(pixels)), UNKNOWN, dtype=np.int64)
    index = {} if reference is None else {int(f): k for k, f in enumerate(reference.frames)}
    if reference is None or frame not in index:
        return true, status
    scale = np.array([reference.size[1] / size[1], reference.size[0] / size[0]])
    limits = np.array([reference.size[1], reference.size[0]])
    inside = np.clip(np.floor(pixels * scale).astype(np.int64), 0, limits - 1)
    source = index[frame]
    known = reference.valid[source, inside[:, 1], inside[:, 0]]
    points = _lift(reference, source, pixels * scale, inside)
    for row, target in enumerate(targets):
        if int(target) not in index:
            continue
        slot = index[int(target)]
        position, z = project(
            points,
            reference.cameras.cam_from_world[slot].astype(np.float64),
            reference.cameras.intrinsics[slot].astype(np.float64),
        )
        in_view = (z > 0) & (position >= 0).all(axis=1) & (position < limits).all(axis=1)
        # Points out of view get any pixel; their depth is not used.
        safe = np.where(in_view[:, None], position, 0.0)
        behind = z > (1 + DEPTH_TOLERANCE) * _farthest_around(reference.depth[slot], safe)
        verdict = np.where(behind, OCCLUDED, VISIBLE)
        status[row] = np.where(known, np.where(in_view, verdict, OUT_OF_VIEW), UNKNOWN)
        true[row] = np.where((known & in_view)[:, None], position / scale, np.nan)
    return true, status


def _lift(
    reference: Reconstruction,
    slot: int,
    pixels: Float[np.ndarray, "N 2"],
    nearest: Int[np.ndarray, "N 2"],
) -> Float[np.ndarray, "N 3"]:
    """World points on the rays of exact pixel positions, at the depth of the nearest pixel."""
    depth = reference.depth[slot, nearest[:, 1], nearest[:, 0]].astype(np.float64)
    homogeneous = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)
    inverse = np.linalg.inv(reference.cameras.intrinsics[slot].astype(np.float64))
    in_camera = homogeneous @ inverse.T * depth[:, None]
    pose = reference.cameras.cam_from_world[slot].astype(np.float64)
    return np.asarray((in_camera - pose[:, 3]) @ pose[:, :3])


def _farthest_around(
    depth: Float[np.ndarray, "H W"], positions: Float[np.ndarray, "N 2"]
) -> Float[np.ndarray, " N"]:
    """Largest of the four depths around image points; infinite where none is known (sky)."""
    low = np.floor(positions - 0.5).astype(np.int64)
    height, width = depth.shape
    corners = [
        depth[np.clip(low[:, 1] + down, 0, height - 1), np.clip(low[:, 0] + right, 0, width - 1)]
        for down in (0, 1)
        for right in (0, 1)
    ]
    farthest = np.max(corners, axis=0).astype(np.float64)
    return np.where(farthest > 0, farthest, np.inf)
