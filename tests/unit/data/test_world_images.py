"""Pictures of the world: the same everywhere, antialiased, lit, with shadows."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from world_oracle import world_rays

from explorer.camera import pixel_centers
from explorer.data.world.render import render, shade
from explorer.data.world.scene import sample_scenes
from explorer.data.world.spec import BOX, FLOOR, SPHERE
from explorer.data.world.tracing import rays, scene_tensors

HEIGHT, WIDTH = 36, 64
GOLDEN_SEEDS = (1_000_000, 1_000_008)  # a room and an open ground
GOLDEN_FRAMES = [0, 16]


def golden_render(device="cpu"):
    scenes = sample_scenes(GOLDEN_SEEDS)
    return render(
        scenes, height=HEIGHT, width=WIDTH, supersample=2, device=device, frames=GOLDEN_FRAMES
    )


def as_arrays(rendered):
    return {name: value.cpu().numpy() for name, value in vars(rendered).items()}


def assert_same_world(one, other):
    """The promise of the world: one seed is one clip on every machine."""
    difference = np.abs(one["images"].astype(int) - other["images"].astype(int)).max(axis=-1)
    assert (difference <= 1).mean() >= 0.999
    same = one["surface"] == other["surface"]
    assert same.mean() >= 0.999
    np.testing.assert_allclose(one["depth"][same], other["depth"][same], rtol=1e-4)
    np.testing.assert_allclose(one["cam_from_world"], other["cam_from_world"], atol=1e-5)
    np.testing.assert_allclose(one["intrinsics"], other["intrinsics"], rtol=1e-5)


def test_a_scene_of_a_seed_is_what_it_was_when_it_was_written_down(golden):
    stored = load_file(golden / "world-seed.safetensors")
    scenes = sample_scenes(GOLDEN_SEEDS)
    assert scenes.room.tolist() == [True, False]
    assert {BOX, SPHERE} <= set(scenes.kind.ravel().tolist())
    assert_same_world(as_arrays(golden_render()), stored)


def test_another_process_with_other_threads_makes_the_same_clip(tmp_path):
    code = f"""
import sys, torch
from safetensors.torch import save_file
from explorer.data.world import render, sample_scenes
torch.set_num_threads(2 if torch.get_num_threads() == 1 else 1)
scenes = sample_scenes({GOLDEN_SEEDS})
got = render(scenes, height={HEIGHT}, width={WIDTH}, supersample=2, frames={GOLDEN_FRAMES})
parameters = {{"scene_" + name: torch.from_numpy(getattr(scenes, name))
              for name in ("center", "half", "axes", "texture", "light", "focal")}}
save_file({{**vars(got), **parameters}}, sys.argv[1])
"""
    path = tmp_path / "other.safetensors"
    repository = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", code, str(path)]
    subprocess.run(command, check=True, timeout=120, cwd=repository)
    other = load_file(path)
    scenes = sample_scenes(GOLDEN_SEEDS)
    for name in ("center", "half", "axes", "texture", "light", "focal"):
        np.testing.assert_array_equal(other["scene_" + name], getattr(scenes, name))
    assert_same_world(as_arrays(golden_render()), other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_makes_the_same_clip():
    assert_same_world(as_arrays(golden_render("cuda")), as_arrays(golden_render()))


def test_chosen_frames_and_single_scenes_are_parts_of_the_whole():
    whole = as_arrays(golden_render())
    scene = sample_scenes(GOLDEN_SEEDS[1:])
    part = render(scene, height=HEIGHT, width=WIDTH, supersample=2, frames=[16])
    np.testing.assert_allclose(part.depth.numpy()[0, 0], whole["depth"][1, 1], rtol=1e-6)
    difference = np.abs(part.images.numpy()[0, 0].astype(int) - whole["images"][1, 1])
    assert (difference <= 1).mean() > 0.999


def test_supersampling_comes_closer_to_a_much_finer_sampling():
    scenes = sample_scenes(GOLDEN_SEEDS[:1])
    size = {"height": HEIGHT, "width": WIDTH, "frames": [0]}
    fine, one, two, three = (
        render(scenes, supersample=count, **size).images.numpy().astype(float)
        for count in (8, 1, 2, 3)
    )
    errors = [np.sqrt(((image - fine) ** 2).mean()) for image in (one, two, three)]
    assert errors[1] < 0.75 * errors[0]
    assert errors[2] < 0.55 * errors[0]


def one_sphere_under_the_sun():
    """An open ground with one sphere, seen from above; the same without it; which sphere it is."""
    scenes = sample_scenes([GOLDEN_SEEDS[1]])
    sphere = int(np.flatnonzero(scenes.kind[0] == SPHERE)[0])
    kind = np.zeros_like(scenes.kind)
    kind[0, sphere] = SPHERE
    tilt = np.deg2rad(25)
    pose = np.zeros((1, 1, 3, 4), dtype=np.float32)
    pose[0, 0, :, :3] = [
        [1, 0, 0],
        [0, np.cos(tilt), -np.sin(tilt)],
        [0, np.sin(tilt), np.cos(tilt)],
    ]
    pose[0, 0, :, 3] = -pose[0, 0, :, :3] @ [0.0, -2.5, -5.0]
    alone = replace(scenes, kind=kind, cam_from_world=pose, focal=np.array([0.7], dtype=np.float32))
    return alone, replace(alone, kind=np.zeros_like(kind)), sphere


def test_the_ground_is_darker_exactly_where_the_sphere_stands_before_the_light():
    scenes, empty, number = one_sphere_under_the_sun()
    size = {"height": 72, "width": 128, "supersample": 1}
    with_sphere, without = render(scenes, **size), render(empty, **size)
    ground = ((with_sphere.surface == FLOOR) & (without.surface == FLOOR)).numpy()[0, 0]
    darker = (
        without.images[0, 0].numpy().astype(int) - with_sphere.images[0, 0].numpy().astype(int)
    ).max(axis=-1) > 4
    origin, directions = world_rays(
        pixel_centers(72, 128).reshape(-1, 2),
        with_sphere.cam_from_world[0, 0],
        with_sphere.intrinsics[0],
    )
    points = origin + with_sphere.depth[0, 0].numpy().reshape(-1, 1) * directions
    to_light = scenes.light[0] - points
    to_light /= np.linalg.norm(to_light, axis=1, keepdims=True)
    away = scenes.center[0, number] - points
    miss = np.linalg.norm(away - (away * to_light).sum(axis=1, keepdims=True) * to_light, axis=1)
    blocked = (miss < scenes.half[0, number, 0]).reshape(72, 128)
    assert (blocked & ground).sum() > 40
    assert (darker == blocked)[ground].mean() > 0.998
    assert not darker[ground & ~blocked].sum() > 2


def test_colours_stay_in_range_and_are_neither_flat_nor_black():
    scenes = sample_scenes(range(2_000_000, 2_000_016))
    images = render(scenes, height=18, width=32, supersample=1, frames=[0]).images.numpy()
    means = images.reshape(16, -1).mean(axis=1)
    assert (means > 25).all()
    assert (means < 240).all()
    assert (images.reshape(16, -1, 3).std(axis=1).max(axis=1) > 8).all()
    tensors = scene_tensors(scenes, "cpu")
    pose = torch.from_numpy(scenes.cam_from_world[:, :1])
    intrinsics = torch.from_numpy(scenes.intrinsics(18, 32))
    colour = shade(tensors, *rays(pose, intrinsics, 18, 32))
    assert colour.min() >= 0
    assert colour.max() <= 1
    assert torch.isfinite(colour).all()


def test_geometry_without_pictures_is_the_same_geometry():
    scenes = sample_scenes(GOLDEN_SEEDS)
    size = {"height": HEIGHT, "width": WIDTH, "frames": GOLDEN_FRAMES}
    bare, full = render(scenes, images=False, **size), render(scenes, supersample=1, **size)
    assert bare.images.numel() == 0
    assert torch.equal(bare.depth, full.depth)
    assert torch.equal(bare.surface, full.surface)
