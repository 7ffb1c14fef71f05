from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from explorer.camera import Cameras, project, unproject
from explorer.reconstruction import Reconstruction

SIZE = (24, 32)


@pytest.fixture
def wall() -> Reconstruction:
    """A slanted wall with a hole, seen by three cameras, normalised."""
    height, width = SIZE
    y, x = np.mgrid[0:height, 0:width]
    depth = np.stack([2 + x / 20 + y / 30 + k for k in range(3)]).astype(np.float32)
    depth[:, :3, :5] = 0.0
    pose = np.tile(np.eye(4, dtype=np.float32)[:3], (3, 1, 1))
    pose[:, 0, 3] = [0.0, -0.5, -1.0]
    matrix = np.array([[30, 0, 15], [0, 31, 12], [0, 0, 1]], dtype=np.float32)
    cameras = Cameras(pose, np.tile(matrix, (3, 1, 1)), SIZE)
    known = (depth > 0).astype(np.float32)
    points = unproject(depth, cameras)
    return Reconstruction(np.arange(3), depth, points, known, cameras, "exact").normalized()


@pytest.mark.parametrize("size", [(12, 16), (8, 16), (48, 64), (7, 9)])
def test_points_of_a_resized_reference_project_to_the_centres_of_its_pixels(
    wall: Reconstruction, size: tuple[int, int]
) -> None:
    found = wall.resized(*size)
    assert found.points.dtype == np.float32
    for slot in range(3):
        known = found.valid[slot]
        camera = found.cameras.select([slot])
        pixels, z = project(
            found.points[slot][known], camera.cam_from_world[0], camera.intrinsics[0]
        )
        y, x = np.nonzero(known)
        np.testing.assert_allclose(pixels, np.stack([x + 0.5, y + 0.5], axis=-1), atol=1e-4)
        np.testing.assert_allclose(z, found.depth[slot][known], rtol=1e-5)
        assert not found.points[slot][~known].any()
    assert not found.valid.all()


def test_depth_is_taken_from_the_nearest_pixel_and_never_mixed(wall: Reconstruction) -> None:
    found = wall.resized(8, 8)
    np.testing.assert_array_equal(found.depth, wall.depth[:, 1::3, 2::4])


def test_a_point_map_of_its_own_is_sampled_as_it_is(wall: Reconstruction) -> None:
    free = replace(wall, points=wall.points * np.float32(1.01))
    np.testing.assert_array_equal(free.resized(8, 8).points, free.points[:, 1::3, 2::4])


def test_a_reconstruction_that_knows_nothing_can_be_resized(wall: Reconstruction) -> None:
    empty = replace(wall, confidence=np.zeros_like(wall.confidence))
    assert not empty.resized(12, 16).points.any()
