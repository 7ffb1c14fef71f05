"""Following surface points through scenes in which objects move and deform."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from world_oracle import exact_depth, world_from_unit, world_rays

from explorer.camera import Cameras, pixel_centers, project, unproject
from explorer.data.world.motion import DEFORMING, RIGID
from explorer.data.world.render import render
from explorer.data.world.scene import sample_scenes
from explorer.data.world.spec import FIRST_OBJECT
from explorer.data.world.splits import split_seeds
from explorer.data.world.tracks import surface_points, track

HEIGHT, WIDTH = 36, 64
SCENES = 10
LAST = 16


@pytest.fixture(scope="module")
def scenes():
    return sample_scenes(split_seeds("dynamic", SCENES))


@pytest.fixture(scope="module")
def rendered(scenes):
    return render(scenes, height=HEIGHT, width=WIDTH, frames=[0, LAST], images=False)


def carried(scenes, index, surface, points, source, target):
    """Points of surfaces at frame `target` that lie at `points` at frame `source`."""
    moved = points.copy()
    for number in np.unique(surface[surface >= FIRST_OBJECT]) - FIRST_OBJECT:
        mine = surface == FIRST_OBJECT + number
        before, after = (world_from_unit(scenes, index, number, f) for f in (source, target))
        carry = after @ np.linalg.inv(before)
        moved[mine] = points[mine] @ carry[:3, :3].T + carry[:3, 3]
    return moved


@pytest.mark.parametrize(("source", "target"), [(0, LAST), (LAST, 0)])
def test_a_track_there_and_back_ends_within_a_tenth_of_a_pixel(scenes, rendered, source, target):
    depth, surface = (getattr(rendered, name)[:, source // LAST] for name in ("depth", "surface"))
    tracks = track(scenes, depth, surface, source=source, target=target)
    pixels = pixel_centers(HEIGHT, WIDTH)
    moving = 0
    for index in range(SCENES):
        seen = tracks.visible[index].numpy()
        numbers = surface[index].numpy()[seen].astype(int)
        intrinsics = scenes.intrinsics(HEIGHT, WIDTH)[index].astype(np.float64)
        poses = scenes.cam_from_world[index].astype(np.float64)
        there = tracks.pixels[index].numpy()[seen]
        hit, surfaces = exact_depth(scenes, index, target, there, poses[target], intrinsics)
        # A ray along a silhouette may pass it in single precision.
        expected = tracks.depth[index].numpy()[seen]
        same = (surfaces == numbers) & (np.abs(hit - expected) < 2e-3 * expected)
        assert same.mean() > 0.99
        origin, directions = world_rays(there, poses[target], intrinsics)
        points = origin + hit[:, None] * directions
        back = carried(scenes, index, surfaces, points, target, source)
        position, _ = project(back, poses[source], intrinsics)
        error = np.linalg.norm(position - pixels[seen], axis=1)[same]
        assert error.max() < 0.1
        assert np.median(error) < 1e-3
        moves = scenes.motion[index][np.maximum(numbers - FIRST_OBJECT, 0)] > 0
        moving += int((moves & (numbers >= FIRST_OBJECT)).sum())
    assert moving > 300


def test_only_points_of_moving_objects_leave_their_place(scenes, rendered):
    depth, surface = rendered.depth[:, 0], rendered.surface[:, 0]
    after = surface_points(scenes, depth, surface, source=0, target=LAST).numpy()
    farthest = {}
    for index in range(SCENES):
        matrix = scenes.intrinsics(HEIGHT, WIDTH)[index].astype(np.float64)
        pose = scenes.cam_from_world[index, 0].astype(np.float64)
        cameras = Cameras(pose[None], matrix[None], (HEIGHT, WIDTH))
        before = unproject(depth[index : index + 1].numpy().astype(np.float64), cameras)[0]
        numbers = surface[index].numpy().astype(int)
        shift = np.linalg.norm(after[index] - before, axis=-1)
        for number in np.unique(numbers[numbers > 0]):
            style = scenes.motion[index, number - FIRST_OBJECT] if number >= FIRST_OBJECT else 0
            farthest.setdefault(int(style), []).append(shift[numbers == number].max())
    assert max(farthest.pop(0)) < 1e-5
    for style in (*RIGID, *DEFORMING):
        assert max(farthest[style]) > 0.05


def test_pictures_follow_the_tracks():
    """Lit from everywhere, a surface point keeps its colour wherever it goes."""
    count, (height, width) = 4, (72, 128)
    scenes = sample_scenes(split_seeds("dynamic", count))
    scenes = replace(scenes, ambient=np.full(count, 1.2, dtype=np.float32))
    rendered = render(scenes, height=height, width=width, frames=[0, 4])
    depth, surface = rendered.depth[:, 0], rendered.surface[:, 0]
    tracks = track(scenes, depth, surface, source=0, target=4)
    still = replace(
        scenes, axes=scenes.axes[:, [0] * 17], center=scenes.center[:, [0] * 17]
    )  # the same points, taken not to move
    wrong = track(still, depth, surface, source=0, target=4)
    number = torch.clamp(surface.long() - FIRST_OBJECT, min=0)
    style = torch.from_numpy(scenes.motion).gather(1, number.reshape(count, -1))
    moving = (style.reshape(surface.shape) > 0) & (surface >= FIRST_OBJECT)
    errors = []
    for found in (tracks, wrong):
        chosen = moving & tracks.visible & wrong.visible
        batch = chosen.nonzero()[:, 0]
        column, row = found.pixels[chosen].long().T
        after = rendered.images[batch, 1, row, column].float()
        errors.append((after - rendered.images[:, 0][chosen].float()).abs().mean())
    assert chosen.sum() > 300
    assert errors[0] < 14
    assert errors[0] < 0.5 * errors[1]
