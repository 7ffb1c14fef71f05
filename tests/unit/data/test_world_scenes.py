"""What scenes contain: counts, fields of view, textures, clearances, parallax; splits by seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from explorer.data.world.draws import Draws
from explorer.data.world.motion import DEFORMING, RIGID
from explorer.data.world.render import render
from explorer.data.world.scene import sample_scenes
from explorer.data.world.spec import (
    BOX,
    CONE,
    CYLINDER,
    FIRST_OBJECT,
    HELD_OUT_TEXTURES,
    MAX_OBJECTS,
    SPHERE,
    TEXTURES,
    TRAIN,
    TRAIN_TEXTURES,
    WorldSpec,
)
from explorer.data.world.splits import SPLITS, spec_of_seeds, split_seeds

COUNT = 600
PARALLAX = 0.3  # units that the camera's centre moves at least, in 95 % of clips
SMALL_SPLITS = ("test", "shifted", "dynamic")


@pytest.fixture(scope="module")
def scenes():
    return sample_scenes(split_seeds("train", COUNT))


@pytest.fixture(scope="module")
def steady():
    """The same scenes with every camera on a tripod."""
    return sample_scenes(split_seeds("train", COUNT), replace(TRAIN, shake=0.0))


@pytest.fixture(scope="module")
def split_scenes():
    return {name: sample_scenes(split_seeds(name, 500)) for name in SMALL_SPLITS}


def centers_of(scenes):
    pose = scenes.cam_from_world.astype(np.float64)
    return -np.einsum("btji,btj->bti", pose[..., :3], pose[..., 3])


@pytest.fixture(scope="module")
def centers(scenes):
    return centers_of(scenes)


def bottoms(scenes):
    """Lowest y of each object's bounding box in frame 0, in the world."""
    return scenes.center[:, 0, :, 1] + np.abs(scenes.axes[:, 0, :, 1]).sum(axis=-1)


def used_textures(scenes):
    """Names of the textures that surfaces which exist have."""
    kinds = scenes.texture[:, :, 0].astype(int)
    seen = np.concatenate([kinds[:, 1], kinds[scenes.room, 2:7].ravel()])
    seen = np.concatenate([seen, kinds[:, FIRST_OBJECT:][scenes.kind > 0]])
    return {TEXTURES[kind] for kind in seen}


def test_every_scene_has_three_to_sixteen_objects_and_every_count_occurs(scenes):
    count = (scenes.kind > 0).sum(axis=1)
    assert set(count.tolist()) == set(range(3, MAX_OBJECTS + 1))
    assert 0.12 < (count > 10).mean() < 0.25
    assert (scenes.kind == BOX).any(axis=1).mean() > 0.85
    for kind in (SPHERE, CYLINDER):
        assert (scenes.kind == kind).any(axis=1).mean() > 0.7


def test_cluttered_scenes_have_stacks(scenes):
    present = scenes.kind > 0
    crowded = present.sum(axis=1) > 10
    center, bottom = scenes.center[:, 0], bottoms(scenes)
    top = center[..., 1] - np.abs(scenes.axes[:, 0, :, 1]).sum(axis=-1)
    # An object stands on another where its base is at the other's top, within its outline.
    level = np.abs(bottom[:, :, None] - top[:, None]) < 1e-4
    beside = np.linalg.norm(center[:, :, None, [0, 2]] - center[:, None][..., [0, 2]], axis=-1)
    within = beside < np.minimum(scenes.half[:, None, :, 0], scenes.half[:, None, :, 2])
    flat = (scenes.kind == BOX) | (scenes.kind == CYLINDER)
    stands = level & within & (present & flat)[:, None] & present[:, :, None]
    stacked = stands.any(axis=2).sum(axis=1)
    assert stacked[crowded].mean() > 1.5
    assert (stacked[crowded] > 0).mean() > 0.8
    assert stands.sum(axis=1).max() <= 1  # one on each
    assert -top[present].max() > 0


def test_fields_of_view_span_35_to_75_degrees(scenes):
    fov = np.degrees(2 * np.arctan(0.5 / scenes.focal.astype(np.float64)))
    assert 35.0 <= fov.min() < 36.0
    assert 74.0 < fov.max() <= 75.0
    width = 256
    focal = scenes.intrinsics(144, width)[:, 0, 0]
    np.testing.assert_allclose(np.degrees(2 * np.arctan(width / 2 / focal)), fov, rtol=1e-5)


def test_at_least_twenty_kinds_of_texture_are_in_use(scenes):
    surfaces = scenes.texture[:, 1:, 0].astype(int)
    counts = np.bincount(surfaces.ravel())
    assert (counts > 0.7 * surfaces.size / len(TRAIN_TEXTURES)).sum() >= 20


def test_rooms_and_open_grounds_both_occur(scenes):
    assert 0.55 < scenes.room.mean() < 0.75
    assert sample_scenes([1, 2, 3], WorldSpec(rooms=0.0)).room.sum() == 0


@pytest.mark.parametrize("split", SMALL_SPLITS)
def test_the_camera_stays_clear_of_objects(split_scenes, split):
    """Of every object's bounding box in its own frame, in every frame of the clip."""
    scenes = split_scenes[split]
    away = centers_of(scenes)[:, :, None] - scenes.center
    inside = np.linalg.solve(scenes.axes.astype(np.float64), away[..., None])[..., 0]
    nearest = np.clip(inside, -1, 1)
    gap = np.linalg.norm(np.einsum("btnij,btnj->btni", scenes.axes, inside - nearest), axis=-1)
    present = np.broadcast_to(scenes.kind[:, None] > 0, gap.shape)
    assert gap[present].min() > 0.29


def test_the_camera_stays_inside_the_room_and_above_the_ground(scenes, centers):
    room = scenes.room
    inside = np.minimum(centers - scenes.room_min[:, None], scenes.room_max[:, None] - centers)
    assert inside[room].min() > 0.29
    assert (-centers[..., 1]).min() > 0.29


def test_nineteen_of_twenty_clips_have_real_parallax(centers, steady):
    travel = np.linalg.norm(centers - centers[:, :1], axis=-1).max(axis=1)
    assert np.quantile(travel, 0.05) >= PARALLAX
    assert travel.min() > 0.2
    assert np.median(travel) > 0.6
    # Smooth on a tripod: no frame moves much more than its neighbours.
    steps = np.linalg.norm(np.diff(centers_of(steady), axis=1), axis=-1)
    assert (steps.max(axis=1) < 2.5 * steps.mean(axis=1)).all()


def test_paths_orbit_dolly_and_pan(steady):
    centers = centers_of(steady)
    turn = np.einsum(
        "bi,bi->b", steady.cam_from_world[:, 0, 2, :3], steady.cam_from_world[:, -1, 2, :3]
    )
    turned = np.degrees(np.arccos(np.clip(turn, -1, 1))) > 0.5
    orbit = np.ptp(np.hypot(centers[..., 0], centers[..., 2]), axis=1) < 1e-3
    assert orbit.mean() > 0.3
    assert (~orbit & ~turned).mean() > 0.1  # dolly
    assert (~orbit & turned).mean() > 0.1  # pan


def test_a_hand_shakes_cameras_a_little_and_slowly(scenes, steady):
    ours, still = scenes.cam_from_world, steady.cam_from_world
    turn = ours[..., :3].astype(np.float64) @ np.swapaxes(still[..., :3], -1, -2)
    angle = np.degrees(np.arccos(np.clip((np.trace(turn, axis1=2, axis2=3) - 1) / 2, -1, 1)))
    held = angle.max(axis=1) > 0.02
    assert 0.3 < held.mean() < 0.5
    # A shifted path may be another candidate's where the clearance decides, but rarely.
    same = held & (angle.max(axis=1) < 3)
    assert same.sum() > 0.95 * held.sum()
    assert 0.2 < np.median(angle[same].max(axis=1)) < 1.5
    shift = np.linalg.norm(centers_of(scenes) - centers_of(steady), axis=-1)
    assert shift[same].max() < 0.07
    assert np.median(shift[same].max(axis=1)) > 0.01
    # Band-limited: what is left between a frame and its neighbours' mean is small.
    wobble = turn[same][..., 0, 2]
    rough = wobble[:, 1:-1] - 0.5 * (wobble[:, 2:] + wobble[:, :-2])
    assert rough.std() < 0.6 * wobble.std()


def test_objects_stand_on_the_floor_or_on_others_or_float(scenes):
    bottom, present = bottoms(scenes), scenes.kind > 0
    assert bottom[present].max() < 1e-5
    lifted = (bottom[present] < -1e-3).mean()
    assert 0.1 < lifted < 0.35


def test_a_scene_depends_on_its_seed_alone(scenes):
    seeds = split_seeds("train", COUNT)
    alone = sample_scenes([seeds[7]])
    other = sample_scenes([seeds[8]])
    for name in ("kind", "center", "axes", "texture", "cam_from_world", "focal", "light"):
        np.testing.assert_array_equal(getattr(scenes, name)[7], getattr(alone, name)[0])
        assert not np.array_equal(getattr(alone, name), getattr(other, name))


def test_splits_share_no_seed():
    spans = {}
    for name, split in SPLITS.items():
        last = split_seeds(name, 1, start=split.count - 1)[0]
        spans[name] = (split_seeds(name, 1)[0], last + 1)
        assert last + 1 - spans[name][0] == split.count
    ordered = sorted(spans.values())
    assert all(ordered[k][1] <= ordered[k + 1][0] for k in range(len(ordered) - 1))
    assert max(spans.values()) == spans["train"]
    assert {name: SPLITS[name].count for name in SMALL_SPLITS} == dict.fromkeys(SMALL_SPLITS, 500)


def test_a_split_refuses_seeds_beyond_its_end_and_names_that_do_not_exist():
    with pytest.raises(ValueError, match="ends at 500"):
        split_seeds("test", 2, start=499)
    with pytest.raises(ValueError, match="there are: .*train"):
        split_seeds("training", 1)


def test_a_seed_says_which_family_it_is_from_and_families_do_not_mix():
    shifted, dynamic = split_seeds("shifted", 1), split_seeds("dynamic", 1)
    assert spec_of_seeds(shifted) == SPLITS["shifted"].spec
    assert spec_of_seeds([*split_seeds("train", 1), *split_seeds("test", 1), 7]) == WorldSpec()
    with pytest.raises(ValueError, match="different families"):
        sample_scenes(shifted + dynamic)


def test_shifted_scenes_show_only_what_training_never_draws(scenes, split_scenes):
    assert used_textures(scenes) == set(TRAIN_TEXTURES)
    assert used_textures(split_scenes["shifted"]) == set(HELD_OUT_TEXTURES)
    assert not (scenes.kind == CONE).any()
    round_ones = scenes.half[scenes.kind == SPHERE]
    assert (round_ones == round_ones[:, :1]).all()  # no ellipsoid
    shifted = split_scenes["shifted"]
    assert set(np.unique(shifted.kind)) == {0, SPHERE, CONE}
    ellipsoids = shifted.half[shifted.kind == SPHERE]
    assert np.ptp(ellipsoids, axis=1).min() > 0
    assert (shifted.kind == CONE).any(axis=1).mean() > 0.9


def test_dynamic_scenes_have_rigid_movers_and_deforming_objects(scenes, split_scenes):
    assert not scenes.motion.any()
    assert (scenes.axes == scenes.axes[:, :1]).all()
    dynamic = split_scenes["dynamic"]
    assert used_textures(dynamic) == set(TRAIN_TEXTURES)
    assert (dynamic.motion > 0).any(axis=1).all()
    assert np.isin(dynamic.motion, RIGID).any(axis=1).mean() > 0.9
    assert np.isin(dynamic.motion, DEFORMING).any(axis=1).mean() > 0.7
    # Gram matrices of the half axes change where an object deforms, and nowhere else.
    gram = np.swapaxes(dynamic.axes, -1, -2).astype(np.float64) @ dynamic.axes
    change = np.abs(gram - gram[:, :1]).max(axis=(1, 3, 4))
    deforming = np.isin(dynamic.motion, DEFORMING)
    assert (change[deforming] > 1e-3).mean() > 0.95
    assert change[~deforming].max() < 1e-5
    # Squashing and leaning keep the volume, and nothing sinks into the floor.
    volume = np.linalg.det(dynamic.axes.astype(np.float64))
    np.testing.assert_allclose(volume, np.broadcast_to(volume[:, :1], volume.shape), rtol=1e-4)
    half_height = np.abs(dynamic.axes[..., 1, :]).sum(axis=-1)
    bottom = dynamic.center[..., 1] + half_height
    upright = (dynamic.kind > 0) & (dynamic.kind != SPHERE)
    assert bottom.transpose(0, 2, 1)[upright].max() < 1e-4


@pytest.mark.parametrize("split", SMALL_SPLITS)
def test_no_clip_of_a_split_begins_in_the_sky(split_scenes, split):
    rendered = render(split_scenes[split], height=9, width=16, frames=[0], images=False)
    assert (rendered.surface[:, 0] > 0).float().mean(dim=(1, 2)).min() > 0.1


def test_draws_refuse_more_numbers_than_a_scene_has():
    draws = Draws([0])
    assert draws.many(1500).shape == (1, 1500)
    with pytest.raises(ValueError, match="more than 1536"):
        draws.many(100)


def test_a_scene_has_room_for_its_most_objects(scenes):
    assert scenes.kind.shape == (COUNT, MAX_OBJECTS)
