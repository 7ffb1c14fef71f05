"""The world's depth, surface ids and cameras against an independent ray caster and each other."""

from __future__ import annotations

import numpy as np
import pytest
from world_oracle import GROUND_RADIUS, exact_depth, trace, world_rays

from explorer.camera import Cameras, pixel_centers, project, unproject
from explorer.data.world.render import render
from explorer.data.world.scene import sample_scenes
from explorer.data.world.spec import BOX, CONE, CYLINDER, FIRST_OBJECT, SPHERE
from explorer.data.world.splits import split_seeds

HEIGHT, WIDTH = 36, 64
FRAMES = [0, 8, 16]
SCENES = 10


@pytest.fixture(scope="module")
def scenes():
    return sample_scenes(split_seeds("validation", SCENES))


@pytest.fixture(scope="module")
def rendered(scenes):
    return render(scenes, height=HEIGHT, width=WIDTH, supersample=1, frames=FRAMES)


def compare_with_the_oracle(scenes, rendered, slots, rays):
    """(relative errors of depth, kinds of what was hit, rays that hit something else)."""
    generator = np.random.Generator(np.random.PCG64(3))
    pixels = pixel_centers(HEIGHT, WIDTH)
    errors, kinds, strangers = [], [], 0
    for index in range(len(scenes.seeds)):
        for slot in slots:
            rows = generator.integers(0, HEIGHT, rays)
            columns = generator.integers(0, WIDTH, rays)
            origin, directions = world_rays(
                pixels[rows, columns],
                rendered.cam_from_world[index, slot],
                rendered.intrinsics[index],
            )
            depth, surface = trace(scenes, index, FRAMES[slot], origin, directions)
            ours = rendered.depth[index, slot].numpy()[rows, columns]
            same = rendered.surface[index, slot].numpy()[rows, columns] == surface
            strangers += int((~same).sum())
            known = same & (surface > 0)
            assert (ours[same & (surface == 0)] == 0).all()
            errors.append(np.abs(ours[known] - depth[known]) / depth[known])
            kind = scenes.kind[index][np.maximum(surface[known] - FIRST_OBJECT, 0)]
            kinds.append(np.where(surface[known] >= FIRST_OBJECT, kind, 0))
    return np.concatenate(errors), np.concatenate(kinds), strangers


@pytest.mark.parametrize(
    ("split", "shapes"),
    [
        ("validation", (BOX, SPHERE, CYLINDER)),
        ("shifted", (SPHERE, CONE)),
        ("dynamic", (BOX, SPHERE, CYLINDER)),
    ],
)
def test_a_thousand_rays_agree_with_an_independent_ray_caster(split, shapes):
    scenes = sample_scenes(split_seeds(split, SCENES))
    rendered = render(scenes, height=HEIGHT, width=WIDTH, frames=FRAMES, images=False)
    error, kind, strangers = compare_with_the_oracle(scenes, rendered, (0, 2), 50)
    # A ray along a silhouette may go either way in single precision.
    assert strangers <= 1
    assert len(error) > 650
    for shape in shapes:
        assert (kind == shape).sum() > 30
    flat = (kind == 0) | (kind == BOX)
    assert error[flat].max() < 1e-4
    # Round meshes have corners, and a grazing hit magnifies their distance from the circle.
    assert np.quantile(error[~flat], 0.99) < 5e-5
    assert error.max() < 5e-4


def test_a_point_seen_in_one_frame_is_found_in_another_through_the_exact_sub_pixel(
    scenes, rendered
):
    pixels = pixel_centers(HEIGHT, WIDTH).reshape(-1, 2)
    seen = tried = 0
    through = []
    for index in range(SCENES):
        intrinsics = rendered.intrinsics[index].numpy().astype(np.float64)
        poses = rendered.cam_from_world[index].numpy().astype(np.float64)
        cameras = Cameras(poses, np.repeat(intrinsics[None], len(poses), axis=0), (HEIGHT, WIDTH))
        points = unproject(rendered.depth[index].numpy().astype(np.float64), cameras)
        for a, b in ((0, 1), (0, 2), (2, 0)):
            world = points[a].reshape(-1, 3)
            # The ground's end is where single precision decides between ground and sky.
            inner = np.hypot(world[:, 0], world[:, 2]) < GROUND_RADIUS - 0.01
            known = (rendered.depth[index, a].numpy().ravel() > 0) & inner
            position, z = project(world, poses[b], intrinsics)
            ahead = known & (z > 0.1)
            there, surface = exact_depth(
                scenes, index, FRAMES[b], position[ahead], poses[b], intrinsics
            )
            # Nothing looks through a surface: what is seen there lies on the point or before it.
            through.append(there > z[ahead] * (1 + 1e-3))
            visible = np.abs(there - z[ahead]) < 1e-3 * z[ahead]
            seen += int(visible.sum())
            tried += int(ahead.sum())
            origin, directions = world_rays(position[ahead], poses[b], intrinsics)
            back, _ = project(origin + there[:, None] * directions, poses[a], intrinsics)
            moved = np.linalg.norm(back - pixels[ahead], axis=1)[visible]
            assert moved.max() < 0.1
            assert np.median(moved) < 1e-3
            number = rendered.surface[index, a].numpy().ravel()[ahead]
            assert (surface == number)[visible].mean() > 0.999
    assert seen > 0.6 * tried
    assert np.concatenate(through).mean() < 2e-4


def test_depth_interpolated_in_the_other_frame_stays_under_a_tenth_of_a_pixel(scenes, rendered):
    """Stored maps alone are enough on flat surfaces, where inverse depth is linear in the image."""
    moved = []
    for index in range(SCENES):
        intrinsics = rendered.intrinsics[index].numpy().astype(np.float64)
        poses = rendered.cam_from_world[index].numpy().astype(np.float64)
        surface = rendered.surface[index].numpy()
        depth = rendered.depth[index].numpy().astype(np.float64)
        cameras = Cameras(poses, np.repeat(intrinsics[None], len(poses), axis=0), (HEIGHT, WIDTH))
        a, b = 0, 1
        points = unproject(depth, cameras)[a].reshape(-1, 3)
        position, z = project(points, poses[b], intrinsics)
        corner = np.floor(position - 0.5).astype(int)
        inside = (corner >= 0).all(axis=1) & (corner < [WIDTH - 1, HEIGHT - 1]).all(axis=1)
        flat = (surface[a].ravel() > 0) & (surface[a].ravel() < FIRST_OBJECT)
        pick = np.flatnonzero(inside & flat & (z > 0))
        x, y = corner[pick].T
        share = position[pick] - 0.5 - corner[pick]
        inverse, same = np.zeros(len(pick)), np.ones(len(pick), dtype=bool)
        for down in (0, 1):
            for right in (0, 1):
                weight = np.where(right, share[:, 0], 1 - share[:, 0]) * np.where(
                    down, share[:, 1], 1 - share[:, 1]
                )
                same &= surface[b, y + down, x + right] == surface[a].ravel()[pick]
                inverse += weight / np.where(same, depth[b, y + down, x + right], 1.0)
        pick, inverse = pick[same], inverse[same]
        origin, directions = world_rays(position[pick], poses[b], intrinsics)
        back, _ = project(origin + directions / inverse[:, None], poses[a], intrinsics)
        moved.append(
            np.linalg.norm(back - pixel_centers(HEIGHT, WIDTH).reshape(-1, 2)[pick], axis=1)
        )
    distance = np.concatenate(moved)
    assert len(distance) > 2000
    assert distance.max() < 0.1


def test_depth_is_measured_along_the_optical_axis(scenes, rendered):
    pixels = pixel_centers(HEIGHT, WIDTH).reshape(-1, 2)
    for index in range(3):
        pose = rendered.cam_from_world[index, 0].numpy().astype(np.float64)
        intrinsics = rendered.intrinsics[index].numpy().astype(np.float64)
        depth = rendered.depth[index, 0].numpy().ravel()
        origin, directions = world_rays(pixels, pose, intrinsics)
        in_camera = (origin + depth[:, None] * directions) @ pose[:, :3].T + pose[:, 3]
        np.testing.assert_allclose(in_camera[:, 2], depth, atol=1e-5)
        floor = rendered.surface[index, 0].numpy().ravel() == 1
        assert floor.any()
        assert np.abs((origin + depth[:, None] * directions)[floor, 1]).max() < 1e-4


def test_cameras_are_rigid_motions_and_nearly_upright(scenes):
    rotation = scenes.cam_from_world[..., :3].astype(np.float64)
    np.testing.assert_allclose(
        rotation @ np.swapaxes(rotation, -1, -2),
        np.broadcast_to(np.eye(3), rotation.shape),
        atol=1e-6,
    )
    assert (np.linalg.det(rotation) > 0.99).all()
    assert (rotation[..., 1, 1] > 0).all()  # image y points down, like the world's
    roll = np.abs(rotation[..., 0, 1]).max(axis=1)
    assert (roll < 1e-6).any()  # a steady camera
    assert (roll > 1e-4).any()  # one in a hand
    assert roll.max() < np.sin(np.deg2rad(1.5))
