from __future__ import annotations

import numpy as np
import pytest

from explorer.camera import Cameras, project
from explorer.data.world.splits import split_seeds
from explorer.evaluate.scenes import (
    exact_geometry,
    mean_reconstruction,
    render_scene,
    training_geometry,
)
from explorer.metrics import compare
from explorer.reconstruction import Reconstruction

FRAMES = np.array([0, 1, 5])
SIZE = (18, 32)
SEED = split_seeds("test", 1)[0]


def constant(depth: float, angle: float, sky: bool = False) -> Reconstruction:
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    pose = np.concatenate([turn, np.full((3, 1), depth)], axis=1)
    maps = np.full((1, 2, 3), depth)
    maps[0, 0, 0] = 0.0 if sky else depth
    matrix = np.diag([10.0 * depth, 10.0, 1.0])
    return Reconstruction(
        frames=np.array([0]),
        depth=maps,
        points=np.stack([maps, 2 * maps, 3 * maps], axis=-1),
        confidence=(maps > 0).astype(float),
        cameras=Cameras(pose[None], matrix[None], (2, 3)),
        source="made up",
    )


def test_the_mean_leaves_out_the_sky_and_turns_halfway() -> None:
    mean = mean_reconstruction([constant(1.0, 0.0), constant(3.0, 0.8, sky=True)])
    assert mean.depth[0, 1, 1] == pytest.approx(2.0)
    assert mean.depth[0, 0, 0] == pytest.approx(1.0)
    np.testing.assert_allclose(mean.points[0, 1, 1], [2, 4, 6], rtol=1e-6)
    halfway = constant(2.0, 0.4).cameras
    np.testing.assert_allclose(mean.cameras.cam_from_world, halfway.cam_from_world, atol=1e-6)
    np.testing.assert_allclose(mean.cameras.intrinsics, halfway.intrinsics)
    assert mean.provenance["scenes"] == 2


def test_the_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        mean_reconstruction([])


def test_the_training_mean_is_that_of_scenes_made_one_by_one() -> None:
    seeds = split_seeds("train", 10)
    single = [exact_geometry([seed], FRAMES, size=SIZE, device="cpu")[0] for seed in seeds]
    known = [each for each in single if each is not None]
    mean = mean_reconstruction(training_geometry(10, FRAMES, size=SIZE, device="cpu"))
    assert mean.provenance["scenes"] == len(known)
    stacked = np.stack([np.where(each.valid, each.depth, np.nan) for each in known])
    assert not np.isnan(stacked).all(axis=0).any()
    np.testing.assert_allclose(mean.depth, np.nanmean(stacked, axis=0), rtol=1e-4)
    np.testing.assert_allclose(mean.cameras.cam_from_world[0], np.eye(3, 4), atol=1e-6)


def test_geometry_is_normalised_and_projects_to_its_own_pixels() -> None:
    exact = exact_geometry([SEED], FRAMES, size=SIZE, device="cpu")[0]
    assert exact is not None
    first = exact.points[0][exact.valid[0]]
    assert np.linalg.norm(first, axis=-1).mean() == pytest.approx(1.0, abs=1e-4)
    row, column = np.argwhere(exact.valid[2])[7]
    pixel, depth = project(
        exact.points[2, row, column][None],
        exact.cameras.cam_from_world[2],
        exact.cameras.intrinsics[2],
    )
    np.testing.assert_allclose(pixel[0], [column + 0.5, row + 0.5], atol=1e-2)
    assert depth[0] == pytest.approx(exact.depth[2, row, column], rel=1e-4)
    assert compare(exact, exact).point_error == pytest.approx(0.0, abs=1e-5)


def test_a_scene_has_pictures_and_the_geometry_of_its_slots() -> None:
    scene = render_scene(SEED, 5, FRAMES, size=SIZE, maps=[(9, 16)], device="cpu")
    assert scene is not None
    assert scene.clip.frames.shape == (5, *SIZE, 3)
    assert scene.clip.frames.std() > 5
    assert {size: each.depth.shape for size, each in scene.exact.items()} == {
        SIZE: (3, *SIZE),
        (9, 16): (3, 9, 16),
    }
