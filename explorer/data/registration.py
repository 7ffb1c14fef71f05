"""Depth maps of one camera as another camera sees them."""

from __future__ import annotations

import numpy as np

from explorer._typing import Float
from explorer.camera import pixel_centers

_OVERLAP = 1.05
"""Neighbouring depth pixels are drawn a little larger than they are, against pinholes between those
of a surface that the other camera sees from a slightly other side."""


def register_depth(
    depth: Float[np.ndarray, "h w"],
    depth_intrinsics: Float[np.ndarray, "3 3"],
    color_intrinsics: Float[np.ndarray, "3 3"],
    color_from_depth: Float[np.ndarray, "4 4"],
    *,
    size: tuple[int, int],
) -> Float[np.ndarray, "H W"]:
    """The depth camera's map in the pixels of the colour camera, z-buffered.

    Each depth pixel is a small square that faces its camera. It is moved into the colour camera's
    frame and drawn there: a colour pixel takes the z-depth of the nearest square that covers its
    centre, and 0 where none does. So depths are never mixed, what the colour camera sees behind an
    edge that hid it from the depth camera stays unknown, and what the depth camera saw behind
    something that is in the colour camera's way is left out. On a slanted surface the value is that
    of a point up to half a depth pixel away.

    Args:
        depth: (h, w) z-depth of the depth camera; 0 or not finite where nothing is known.
        depth_intrinsics: (3, 3) in pixels of (h, w), pixel centres at +0.5.
        color_intrinsics: (3, 3) in pixels of `size`, pixel centres at +0.5.
        color_from_depth: (4, 4) rigid, from the depth camera's frame into the colour camera's; in
            the unit of `depth`.
        size: (height, width) of the colour camera's pictures.

    Returns:
        (H, W) float32 z-depth of the colour camera.
    """
    height, width = size
    known = np.isfinite(depth) & (depth > 0)
    z = depth[known].astype(np.float64)
    focal, center = np.diag(depth_intrinsics)[:2], depth_intrinsics[:2, 2]
    sideways = (pixel_centers(*depth.shape)[known] - center) / focal * z[:, None]
    moved = np.concatenate([sideways, z[:, None]], axis=1) @ color_from_depth[:3, :3].T
    moved += color_from_depth[:3, 3]
    z, moved = z[moved[:, 2] > 0], moved[moved[:, 2] > 0]

    color_focal = np.diag(color_intrinsics)[:2]
    at = moved[:, :2] / moved[:, 2:] * color_focal + color_intrinsics[:2, 2]
    half = _OVERLAP / 2 * color_focal / focal * (z / moved[:, 2])[:, None]
    low = np.ceil(at - half - 0.5).astype(np.int64)
    high = np.floor(at + half - 0.5).astype(np.int64)

    nearest = np.full(height * width, np.inf, dtype=np.float64)
    across, down = (high - low + 1).max(axis=0, initial=0)
    for dy in range(down):
        for dx in range(across):
            x, y = low[:, 0] + dx, low[:, 1] + dy
            covered = (x <= high[:, 0]) & (y <= high[:, 1])
            covered &= (x >= 0) & (x < width) & (y >= 0) & (y < height)
            np.minimum.at(nearest, (y * width + x)[covered], moved[covered, 2])
    found = np.where(np.isfinite(nearest), nearest, 0.0).astype(np.float32)
    return found.reshape(height, width)
