"""Taking distortion out, against the forward formula of Brown's model."""

from __future__ import annotations

import numpy as np

from explorer.camera import pixel_centers
from explorer.data.lens import Lens

SIZE = (90, 120)
MATRIX = np.array([[100.0, 0, 63.5], [0, 98.0, 41.0], [0, 0, 1]])
NUMBERS = (0.25, -0.6, 0.004, -0.003, 0.5)


def distorted(pixels):
    """Where a lens images what a pinhole camera images at these image points."""
    k1, k2, p1, p2, k3 = NUMBERS
    x, y = np.moveaxis((pixels - MATRIX[:2, 2]) / np.diag(MATRIX)[:2], -1, 0)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    moved = np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=-1,
    )
    return moved * np.diag(MATRIX)[:2] + MATRIX[:2, 2]


def test_a_picture_shows_at_each_pixel_what_the_lens_put_elsewhere():
    height, width = SIZE
    centers = pixel_centers(height, width)
    picture = np.zeros((*SIZE, 3), dtype=np.uint8)
    picture[..., 0] = np.rint(centers[..., 0] * 2)
    picture[..., 1] = np.rint(centers[..., 1] * 2)
    picture[..., 2] = 200
    found = Lens(MATRIX, NUMBERS, SIZE).picture(picture)
    where = distorted(centers)
    shift = np.linalg.norm(where - centers, axis=-1)
    assert shift.max() > 3  # there is something to take out
    inside = found[..., 2] == 200
    assert inside.mean() > 0.9
    off = np.abs(found[..., :2] / 2 - where)[inside]
    assert off.max() < 0.6  # rounding to whole grey levels of half a pixel
    assert off.mean() < 0.2
    assert not found[found[..., 2] == 0].any()


def test_depth_is_moved_alike_and_never_mixed():
    depth = np.where(pixel_centers(*SIZE)[..., 0] < 60, 1.0, 3.0).astype(np.float32)
    found = Lens(MATRIX, NUMBERS, SIZE).depth(depth)
    assert set(np.unique(found)) <= {0.0, 1.0, 3.0}
    expected = distorted(pixel_centers(*SIZE))[..., 0] < 60
    agree = (found == 1.0) == expected
    assert agree[found > 0].mean() > 0.99


def test_without_distortion_nothing_is_touched_and_nothing_is_said():
    lens = Lens(MATRIX, (0.0, 0.0, 0.0, 0.0, 0.0), SIZE)
    picture = np.zeros((*SIZE, 3), dtype=np.uint8)
    assert lens.picture(picture) is picture
    assert lens.treatment == ""
    assert "0.25" in Lens(MATRIX, NUMBERS, SIZE).treatment
