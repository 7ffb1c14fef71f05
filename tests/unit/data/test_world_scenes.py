"""What scenes contain: counts, fields of view, textures, clearances, parallax; splits by seed."""

from __future__ import annotations

import numpy as np
import pytest

from explorer.data.world.draws import Draws
from explorer.data.world.scene import BOX, MAX_OBJECTS, SPHERE, WorldSpec, sample_scenes
from explorer.data.world.splits import split_seeds

COUNT = 600
PARALLAX = 0.3  # units that the camera's centre moves at least, in 95 % of clips


@pytest.fixture(scope="module")
def scenes():
    return sample_scenes(split_seeds("train", COUNT))


@pytest.fixture(scope="module")
def centers(scenes):
    pose = scenes.cam_from_world.astype(np.float64)
    return -np.einsum("btji,btj->bti", pose[..., :3], pose[..., 3])


def test_every_scene_has_three_to_ten_objects_and_every_count_occurs(scenes):
    assert set((scenes.kind > 0).sum(axis=1).tolist()) == set(range(3, 11))
    assert (scenes.kind == BOX).any(axis=1).mean() > 0.9
    assert (scenes.kind == SPHERE).any(axis=1).mean() > 0.8


def test_fields_of_view_span_35_to_75_degrees(scenes):
    fov = np.degrees(2 * np.arctan(0.5 / scenes.focal.astype(np.float64)))
    assert 35.0 <= fov.min() < 36.0
    assert 74.0 < fov.max() <= 75.0
    width = 256
    focal = scenes.intrinsics(144, width)[:, 0, 0]
    np.testing.assert_allclose(np.degrees(2 * np.arctan(width / 2 / focal)), fov, rtol=1e-5)


def test_at_least_eight_kinds_of_texture_are_in_use(scenes):
    surfaces = scenes.texture[:, 1:, 0].astype(int)
    counts = np.bincount(surfaces.ravel())
    assert (counts > 0.5 * surfaces.size / len(counts)).sum() >= 8


def test_rooms_and_open_grounds_both_occur(scenes):
    assert 0.55 < scenes.room.mean() < 0.75
    assert sample_scenes([1, 2, 3], WorldSpec(rooms=0.0)).room.sum() == 0


def test_the_camera_stays_clear_of_objects(scenes, centers):
    away = centers[:, :, None] - scenes.center[:, None]
    cosine, sine = np.cos(scenes.yaw)[:, None], np.sin(scenes.yaw)[:, None]
    turned = np.stack(
        [
            cosine * away[..., 0] - sine * away[..., 2],
            away[..., 1],
            sine * away[..., 0] + cosine * away[..., 2],
        ],
        axis=-1,
    )
    outside = np.abs(turned) - scenes.half[:, None]
    box = np.linalg.norm(np.maximum(outside, 0), axis=-1)
    sphere = np.linalg.norm(away, axis=-1) - scenes.half[:, None, :, 0]
    gap = np.where(scenes.kind[:, None] == BOX, box, sphere)
    assert gap[np.broadcast_to(scenes.kind[:, None] > 0, gap.shape)].min() > 0.29


def test_the_camera_stays_inside_the_room_and_above_the_ground(scenes, centers):
    room = scenes.room
    inside = np.minimum(centers - scenes.room_min[:, None], scenes.room_max[:, None] - centers)
    assert inside[room].min() > 0.29
    assert (-centers[..., 1]).min() > 0.29


def test_nineteen_of_twenty_clips_have_real_parallax(centers):
    travel = np.linalg.norm(centers - centers[:, :1], axis=-1).max(axis=1)
    assert np.quantile(travel, 0.05) >= PARALLAX
    assert travel.min() > 0.2
    assert np.median(travel) > 0.6
    # Smooth: no frame moves much more than its neighbours.
    steps = np.linalg.norm(np.diff(centers, axis=1), axis=-1)
    assert (steps.max(axis=1) < 2.5 * steps.mean(axis=1)).all()


def test_paths_orbit_dolly_and_pan(scenes, centers):
    turn = np.einsum(
        "bi,bi->b", scenes.cam_from_world[:, 0, 2, :3], scenes.cam_from_world[:, -1, 2, :3]
    )
    turned = np.degrees(np.arccos(np.clip(turn, -1, 1))) > 0.5
    orbit = np.ptp(np.hypot(centers[..., 0], centers[..., 2]), axis=1) < 1e-3
    assert orbit.mean() > 0.3
    assert (~orbit & ~turned).mean() > 0.1  # dolly
    assert (~orbit & turned).mean() > 0.1  # pan


def test_objects_stand_on_the_floor_or_float_above_it(scenes):
    bottom = scenes.center[..., 1] + scenes.half[..., 1]
    present = scenes.kind > 0
    assert bottom[present].max() < 1e-6
    lifted = (bottom[present] < -1e-3).mean()
    assert 0.1 < lifted < 0.3


def test_a_scene_depends_on_its_seed_alone(scenes):
    seeds = split_seeds("train", COUNT)
    alone = sample_scenes([seeds[7]])
    other = sample_scenes([seeds[8]])
    for name in ("kind", "center", "half", "texture", "cam_from_world", "focal", "light"):
        np.testing.assert_array_equal(getattr(scenes, name)[7], getattr(alone, name)[0])
        assert not np.array_equal(getattr(alone, name), getattr(other, name))


def test_splits_share_no_seed():
    spans = {}
    for split in ("train", "validation", "test", "shipped"):
        first = split_seeds(split, 1)[0]
        count = 1_000_000
        assert split_seeds(split, 2, start=count - 2)[-1] == first + count - 1
        spans[split] = (first, first + count)
    ordered = sorted(spans.values())
    assert all(ordered[k][1] <= ordered[k + 1][0] for k in range(len(ordered) - 1))
    assert max(spans.values()) == spans["train"]  # the only one that goes on above its million


def test_a_split_refuses_seeds_beyond_its_end_and_names_that_do_not_exist():
    with pytest.raises(ValueError, match="ends at 1000000"):
        split_seeds("shipped", 2, start=999_999)
    with pytest.raises(ValueError, match="there are: .*train"):
        split_seeds("training", 1)


def test_draws_refuse_more_numbers_than_a_scene_has():
    draws = Draws([0])
    assert draws.many(1000).shape == (1, 1000)
    with pytest.raises(ValueError, match="more than 1024"):
        draws.many(100)


def test_a_scene_has_room_for_its_most_objects(scenes):
    assert scenes.kind.shape == (COUNT, MAX_OBJECTS)
