"""The shipped videos against the geometry beside them, whatever version of the world made both.

A seed means a scene only in the version of the world that drew it; pixels and geometry must fit
each other in any: where depth and cameras say that a point went, the video must show it.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from explorer.assets import assets_root
from explorer.camera import project, unproject
from explorer.clip import load_clip
from explorer.data.geometry import Geometry, load_geometry

FOLDER = assets_root() / "clips"
VIDEOS = sorted(FOLDER.glob("*.mp4"))
FROM, INTO = 2, (6, 14)
MOST = 40.0  # of 255: an edge of a shadow or of something that moves counts no more than this


def warped(geometry: Geometry, source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """(image points (H, W, 2) in `target` of the pixels of `source`, which of them it sees)."""
    height, width = geometry.cameras.size
    depth = geometry.depth[[source]].astype(np.float64)
    points = unproject(depth, geometry.cameras.select([source]))[0].reshape(-1, 3)
    pose = geometry.cameras.cam_from_world[target]
    places, z = project(points, pose, geometry.cameras.intrinsics[target])
    places, z = places.reshape(height, width, 2), z.reshape(height, width)
    x, y = places[..., 0], places[..., 1]
    seen = (depth[0] > 0) & (z > 0) & (x > 2) & (y > 2) & (x < width - 2) & (y < height - 2)
    column, row = (np.where(seen, each, 0).astype(int) for each in (x, y))
    seen &= np.abs(geometry.depth[target][row, column] - z) < 0.01 * np.where(seen, z, 1.0)
    return places, seen


def mismatch(frames: np.ndarray, places: np.ndarray, seen: np.ndarray, shift: tuple[float, float]):
    """Mean difference in grey of the seen points, with the target's points shifted by (x, y)."""
    # The centre of the first pixel is at 0.5 here and at 0 in OpenCV.
    at = (places - 0.5 + np.array(shift)).astype(np.float32)
    found = cv2.remap(frames[1], at, None, cv2.INTER_LINEAR)
    return np.minimum(np.abs(found - frames[0])[seen], MOST).mean()


def lowest(before: float, here: float, after: float) -> float:
    """Where the parabola through three equally spaced values, 1 apart, has its lowest point."""
    return 0.5 * (before - after) / (before - 2 * here + after)


def test_there_is_a_dozen_of_them() -> None:
    assert len(VIDEOS) == 12


@pytest.mark.parametrize("video", VIDEOS, ids=lambda path: path.stem)
def test_a_video_shows_each_point_where_its_geometry_says_that_it_went(video: Path) -> None:
    geometry = load_geometry(video.with_suffix(".safetensors.gz"))
    clip = load_clip(video, count=None, size=None)
    assert clip.frames.shape[:3] == geometry.depth.shape
    for target in INTO:
        places, seen = warped(geometry, FROM, target)
        assert seen.mean() > 0.2
        moved = places - np.stack(np.meshgrid(np.arange(256), np.arange(144)), -1) - 0.5
        assert np.linalg.norm(moved[seen], axis=-1).mean() > 2, "nothing moves: nothing is shown"
        pair = [cv2.cvtColor(clip.frames[i], cv2.COLOR_RGB2GRAY) for i in (FROM, target)]
        frames = np.stack(pair).astype(np.float32)
        here = mismatch(frames, places, seen, (0, 0))
        still = np.minimum(np.abs(frames[1] - frames[0])[seen], MOST).mean()
        assert here < 0.5 * still, "no better than to say that nothing moved"
        for axis in ((1, 0), (0, 1)):
            sides = [mismatch(frames, places, seen, (s * axis[0], s * axis[1])) for s in (-1, 1)]
            assert here < min(sides)
            assert abs(lowest(sides[0], here, sides[1])) < 0.15, "pixels"
