"""Depth maps of one camera as another camera sees them."""

from __future__ import annotations

import numpy as np

from explorer._typing import Float
from explorer.camera import pixel_centers

_OVERLAP = 1.05
"""Neighbouring depth pixels are drawn a little larger than they are, against pinholes between those
of a surface that the other camera sees from a slightly other side."""

_SAME_SURFACE = 0.05
"""Neighbouring depths that differ by less than this share are taken as of one surface."""


def register_depth(
    depth: Float[np.ndarray, "h w"],
    depth_intrinsics: Float[np.ndarray, "3 3"],
    color_intrinsics: Float[np.ndarray, "3 3"],
    color_from_depth: Float[np.ndarray, "4 4"],
    *,
    size: tuple[int, int],
) -> Float[np.ndarray, "H W"]:
    """The depth camera's map in the pixels of the colour camera, z-buffered.

    Each depth pixel is a small piece of the plane through it and its neighbours; one at an edge
    faces its camera. It is moved into the colour camera's frame and drawn there: a colour pixel
    takes the z-depth that the nearest piece that covers its centre has at its centre, and 0 where
    none does. So a plane stays that plane, depths of two surfaces are never mixed, what the colour
    camera sees behind an edge that hid it from the depth camera stays unknown, and what the depth
    camera saw behind something that is in the colour camera's way is left out.

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
    rotation, translation = color_from_depth[:3, :3], color_from_depth[:3, 3]
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0.0).astype(np.float64)
    known = depth > 0
    z, planes = depth[known], _planes(depth, depth_intrinsics)[known]
    moved = _rays(pixel_centers(*depth.shape)[known], depth_intrinsics) * z[:, None]
    moved = moved @ rotation.T + translation
    ahead = moved[:, 2] > 0
    z, planes, moved = z[ahead], planes[ahead] @ rotation.T, moved[ahead]
    # n x = 1 is R n x' = 1 + R n t after the motion.
    planes = planes / (1 + planes @ translation)[:, None]

    color_focal = np.diag(color_intrinsics)[:2]
    at = moved[:, :2] / moved[:, 2:] * color_focal + color_intrinsics[:2, 2]
    scale = color_focal / np.diag(depth_intrinsics)[:2]
    half = _OVERLAP / 2 * scale * (z / moved[:, 2])[:, None]
    low = np.ceil(at - half - 0.5).astype(np.int64)
    high = np.floor(at + half - 0.5).astype(np.int64)

    nearest = np.full(height * width, np.inf, dtype=np.float64)
    across, down = (high - low + 1).max(axis=0, initial=0)
    for dy in range(down):
        for dx in range(across):
            x, y = low[:, 0] + dx, low[:, 1] + dy
            covered = (x <= high[:, 0]) & (y <= high[:, 1])
            covered &= (x >= 0) & (x < width) & (y >= 0) & (y < height)
            x, y = x[covered], y[covered]
            rays = _rays(np.stack([x, y], axis=-1) + 0.5, color_intrinsics)
            inverse = (planes[covered] * rays).sum(axis=-1)
            # The piece's own depth, should its plane be seen from the side.
            center = moved[covered, 2]
            off = np.abs(inverse * center - 1) > _SAME_SURFACE
            here = np.where(off, center, 1 / np.where(off, 1.0, inverse))
            np.minimum.at(nearest, y * width + x, here)
    found = np.where(np.isfinite(nearest), nearest, 0.0).astype(np.float32)
    return found.reshape(height, width)


def _rays(
    pixels: Float[np.ndarray, "*n 2"], intrinsics: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "*n 3"]:
    """Camera-frame points of image points at z-depth 1."""
    sideways = (pixels - intrinsics[:2, 2]) / np.diag(intrinsics)[:2]
    return np.concatenate([sideways, np.ones((*pixels.shape[:-1], 1))], axis=-1)


def _planes(
    depth: Float[np.ndarray, "h w"], intrinsics: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "h w 3"]:
    """Normals n of the planes n x = 1 through each pixel's point and its neighbours' points.

    The inverse depth of a plane is n times the ray, so its slope in the image gives n.
    """
    inverse = np.where(depth > 0, 1 / np.where(depth > 0, depth, 1.0), 0.0)
    slopes = np.zeros((*depth.shape, 2))
    for axis in (0, 1):
        there, here, back = (
            np.take(inverse, range(first, inverse.shape[axis] - 2 + first), axis)
            for first in (2, 1, 0)
        )
        same = np.maximum(np.abs(there - here), np.abs(back - here)) < _SAME_SURFACE * here
        inner = slopes[1:-1, :, 1] if axis == 0 else slopes[:, 1:-1, 0]
        inner[...] = np.where(same & (there > 0) & (back > 0), (there - back) / 2, 0.0)
    slopes *= np.diag(intrinsics)[:2]
    rays = _rays(pixel_centers(*depth.shape), intrinsics)
    along = inverse - (slopes * rays[..., :2]).sum(axis=-1)
    return np.concatenate([slopes, along[..., None]], axis=-1)
