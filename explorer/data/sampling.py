"""Maps and cameras of source frames at the pixels of a clip: geometry follows crop and resizing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from explorer._typing import Float, Int
from explorer.camera import Cameras

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.data.scene import View


def sample_maps(
    clip: Clip, view: View
) -> tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """(depth, confidence) of one frame at the centres of the clip's pixels, nearest neighbour."""
    if view.depth is None:
        nothing = np.zeros(clip.size, dtype=np.float32)
        return nothing, nothing
    pick = np.ix_(*pixels_under(clip, (view.depth.shape[0], view.depth.shape[1])))
    depth = np.where(np.isfinite(view.depth[pick]), view.depth[pick], 0.0).astype(np.float32)
    depth = np.maximum(depth, 0.0)
    confidence = np.ones_like(depth) if view.confidence is None else view.confidence[pick]
    return depth, np.where(depth > 0, confidence, 0.0).astype(np.float32)


def pixels_under(
    clip: Clip, map_size: tuple[int, int]
) -> tuple[Int[np.ndarray, " H"], Int[np.ndarray, " W"]]:
    """Rows and columns of a map of the whole source frame that lie under the clip's pixels."""
    top, left, crop_height, crop_width = clip.crop
    height, width = clip.size
    down, across = (map_size[axis] / clip.source_size[axis] for axis in (0, 1))
    rows = _samples(top * down, crop_height * down, height, map_size[0])
    columns = _samples(left * across, crop_width * across, width, map_size[1])
    return rows, columns


def clip_cameras(clip: Clip, views: Sequence[View]) -> Cameras:
    """The cameras of source frames, in pixels of the clip."""
    cam_from_world = np.stack([view.cam_from_world for view in views]).astype(np.float64)
    intrinsics = np.stack([view.intrinsics for view in views]).astype(np.float64)
    return cropped(Cameras(cam_from_world, intrinsics, clip.source_size), clip.crop).resized(
        *clip.size
    )


def cropped(cameras: Cameras, crop: tuple[int, int, int, int]) -> Cameras:
    """The same cameras for the part (y0, x0, height, width) of their images."""
    top, left, height, width = crop
    intrinsics = cameras.intrinsics.copy()
    intrinsics[:, 0, 2] -= left
    intrinsics[:, 1, 2] -= top
    return Cameras(cameras.cam_from_world, intrinsics, (height, width))


def _samples(start: float, extent: float, count: int, limit: int) -> Int[np.ndarray, " N"]:
    """Source rows (or columns) under `count` pixel centres spread over [start, start + extent)."""
    centers = start + (np.arange(count) + 0.5) * extent / count
    return np.clip(np.floor(centers), 0, limit - 1).astype(np.int64)
