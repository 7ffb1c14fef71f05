"""Registered depth against rays cast from the colour camera at a plane and a ball before it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from explorer.camera import pixel_centers
from explorer.data.registration import register_depth

# In the depth camera's frame, metres: n x = 1, and a ball.
PLANE = np.array([0.12, -0.08, 0.3])
BALL, RADIUS = np.array([0.1, 0.05, 1.6]), 0.35


def pose(turn=(0.02, -0.03, 0.01), shift=(-0.06, 0.01, 0.02)):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = cv2.Rodrigues(np.array(turn))[0], shift
    return matrix


def camera(focal, size):
    return np.array(
        [[focal, 0, size[1] / 2 + 1.3], [0, focal * 1.05, size[0] / 2 - 0.7], [0, 0, 1]]
    )


def cast(matrix, size, from_depth):
    """(z of the plane, z of the ball or inf) by solving for each ray of a camera in float64."""
    pixels = pixel_centers(*size)
    rays = np.concatenate([pixels, np.ones((*size, 1))], axis=-1) @ np.linalg.inv(matrix).T
    rotation, shift = from_depth[:3, :3], from_depth[:3, 3]
    center, rays = -rotation.T @ shift, rays @ rotation  # in the depth camera's frame
    plane = (1 - PLANE @ center) / (rays @ PLANE)
    a, b = (rays * rays).sum(-1), rays @ (center - BALL)
    inside = b * b - a * ((center - BALL) @ (center - BALL) - RADIUS**2)
    with np.errstate(invalid="ignore"):
        ball = np.where(inside > 0, (-b - np.sqrt(inside)) / a, np.inf)
    return plane, ball, center, rays


def registered(depth_size=(96, 128), color_size=(96, 128), moved=None, focals=(117.0, 105.0)):
    moved = pose() if moved is None else moved
    depth_camera, color_camera = camera(focals[0], depth_size), camera(focals[1], color_size)
    plane, ball, *_ = cast(depth_camera, depth_size, np.eye(4))
    found = register_depth(
        np.minimum(plane, ball), depth_camera, color_camera, moved, size=color_size
    )
    return found, cast(color_camera, color_size, moved), depth_camera


@pytest.mark.parametrize(
    ("depth_size", "color_size", "focals"),
    [
        ((96, 128), (96, 128), (117.0, 105.0)),  # 7-Scenes: the colour camera sees more
        ((60, 80), (96, 128), (73.0, 130.0)),  # ScanNet: it has more pixels
        ((96, 128), (48, 64), (117.0, 52.0)),
    ],
)
def test_every_registered_depth_is_that_of_the_surface_that_the_colour_pixel_sees(
    depth_size, color_size, focals
):
    found, (plane, ball, *_), _ = registered(depth_size, color_size, focals=focals)
    seen = np.minimum(plane, ball)
    known = found > 0
    assert known.mean() > 0.7
    background = known & np.isinf(ball)
    off = np.abs(found / seen - 1)
    # A plane stays that plane, apart from a seam around the ball.
    assert np.quantile(off[background], 0.9) < 1e-6
    assert np.median(off[known & np.isfinite(ball)]) < 3e-3
    wrong = known & (off > 0.05)
    edge = np.isfinite(ball).astype(np.uint8)
    near_edge = cv2.dilate(edge, np.ones((3, 3))) != cv2.erode(edge, np.ones((3, 3)))
    assert not (wrong & ~near_edge).any()
    # Nothing is mixed: what is wrong at the edge is the depth of the other surface.
    nearest = cv2.erode(np.where(np.isfinite(ball), ball, plane), np.ones((3, 3)))
    assert (found[wrong] > 0.9 * nearest[wrong]).all()


def test_what_the_depth_camera_could_not_see_stays_unknown():
    """Of the wall that the ball hides from the depth camera, but not from the colour camera."""
    found, (plane, ball, center, rays), _ = registered(moved=pose(shift=(-0.2, 0.01, 0.02)))
    points = center + rays * plane[..., None]
    along = (points @ BALL) / (points * points).sum(-1)
    hidden = np.linalg.norm(points * along[..., None] - BALL, axis=-1) < RADIUS
    shadow = hidden & np.isinf(ball) & (along > 0) & (along < 1)
    assert shadow.sum() > 50
    inner = cv2.erode(shadow.astype(np.uint8), np.ones((5, 5))) > 0
    assert inner.sum() > 10
    assert (found[inner] == 0).all()


def test_what_the_colour_camera_cannot_see_does_not_shine_through():
    """The wall behind the ball, which the depth camera sees beside it."""
    found, (_, ball, *_), _ = registered()
    inner = cv2.erode(np.isfinite(ball).astype(np.uint8), np.ones((5, 5))) > 0
    assert (found[inner] < 2).all()


def test_one_camera_for_both_changes_nothing():
    depth_camera = camera(117.0, (96, 128))
    plane, ball, *_ = cast(depth_camera, (96, 128), np.eye(4))
    depth = np.minimum(plane, ball).astype(np.float32)
    depth[10:20, 30:50] = 0
    depth[0, 0] = np.nan
    found = register_depth(depth, depth_camera, depth_camera, np.eye(4), size=(96, 128))
    expected = np.nan_to_num(depth)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_no_depth_at_all_registers_to_no_depth():
    matrix = camera(50.0, (8, 8))
    found = register_depth(np.zeros((8, 8)), matrix, matrix, pose(), size=(6, 4))
    assert found.shape == (6, 4)
    assert not found.any()


def test_taking_both_for_one_camera_would_be_several_pixels_off():
    """So the test above can fail: the raw map differs from the registered one."""
    found, (plane, ball, *_), matrix = registered()
    raw = np.minimum(*cast(matrix, (96, 128), np.eye(4))[:2])
    seen = np.minimum(plane, ball)
    known = found > 0
    assert np.median(np.abs(raw / seen - 1)[known]) > 0.01
