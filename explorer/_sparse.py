"""Sparse points as maps: each in the pixel that it projects into."""

from __future__ import annotations

import numpy as np

from explorer._typing import Float
from explorer.camera import project


def splat(
    points: Float[np.ndarray, "N 3"],
    confidence: Float[np.ndarray, " N"],
    cam_from_world: Float[np.ndarray, "3 4"],
    intrinsics: Float[np.ndarray, "3 3"],
    *,
    size: tuple[int, int],
) -> tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
    """Depth, point and confidence maps of one frame; 0 where no point falls.

    Of several points in a pixel the nearest stays. Points behind the camera or beside the image
    are left out.

    Args:
        points: (N, 3) world points.
        confidence: (N,) > 0.
        cam_from_world: (3, 4).
        intrinsics: (3, 3) in pixels of an image of `size`.
        size: (height, width) of the maps.
    """
    height, width = size
    pixels, z = project(points.astype(np.float64), cam_from_world, intrinsics)
    inside = (z > 0) & (pixels >= 0).all(axis=1) & (pixels < [width, height]).all(axis=1)
    far_first = np.flatnonzero(inside)[np.argsort(-z[inside], kind="stable")]
    x, y = np.floor(pixels[far_first]).astype(np.int64).T
    maps = (
        np.zeros((height, width), dtype=np.float32),
        np.zeros((height, width, 3), dtype=np.float32),
        np.zeros((height, width), dtype=np.float32),
    )
    for each, values in zip(maps, (z, points, confidence), strict=True):
        each[y, x] = values[far_first]
    return maps
