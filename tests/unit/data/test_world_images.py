"""Pictures of the world: the same everywhere, antialiased, lit, with shadows.

A new version of the world needs a new stored scene, which this file writes when it is run:

    PYTHONPATH=.:tests/unit/data python tests/unit/data/test_world_images.py
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from world_oracle import world_rays

from explorer.camera import pixel_centers
from explorer.data.world.noise import lattice
from explorer.data.world.render import EAGER, render, shade
from explorer.data.world.scene import sample_scenes
from explorer.data.world.spec import BOX, CONE, CYLINDER, FLOOR, SPHERE, TEXTURES, WORLD_VERSION
from explorer.data.world.tensors import scene_tensors
from explorer.data.world.textures import albedo
from explorer.data.world.tracing import rays

HEIGHT, WIDTH = 36, 64
GOLDEN_SEEDS = (1_000_002, 1_000_008)  # a room and an open ground
GOLDEN_FRAMES = [0, 16]
GOLDEN_SPLITS = {"validation": GOLDEN_SEEDS, "shifted": (4_000_000,), "dynamic": (5_000_000,)}
GOLDEN_FILE = "world-seed.safetensors"


def golden_render(device="cpu", seeds=GOLDEN_SEEDS):
    scenes = sample_scenes(seeds)
    return render(
        scenes, height=HEIGHT, width=WIDTH, supersample=2, device=device, frames=GOLDEN_FRAMES
    )


def as_arrays(rendered):
    return {name: value.cpu().numpy() for name, value in vars(rendered).items()}


def run_elsewhere(code, path):
    """The arrays that a program in a process of its own writes to a path, its only argument."""
    command = [sys.executable, "-c", code, str(path)]
    subprocess.run(command, check=True, timeout=280, cwd=Path(__file__).resolve().parents[3])
    return load_file(path)


def assert_same_world(one, other):
    """The promise of the world: one seed is one clip on every machine."""
    difference = np.abs(one["images"].astype(int) - other["images"].astype(int)).max(axis=-1)
    assert (difference <= 1).mean() >= 0.999
    same = one["surface"] == other["surface"]
    assert same.mean() >= 0.999
    np.testing.assert_allclose(one["depth"][same], other["depth"][same], rtol=1e-4)
    np.testing.assert_allclose(one["cam_from_world"], other["cam_from_world"], atol=1e-5)
    np.testing.assert_allclose(one["intrinsics"], other["intrinsics"], rtol=1e-5)


@pytest.mark.parametrize("split", GOLDEN_SPLITS)
def test_a_scene_of_a_seed_is_what_it_was_when_it_was_written_down(golden, split):
    stored = {
        name.removeprefix(f"{split}."): values
        for name, values in load_file(golden / GOLDEN_FILE).items()
        if name.startswith(split)
    }
    assert_same_world(as_arrays(golden_render(seeds=GOLDEN_SPLITS[split])), stored)


def test_the_stored_scenes_are_of_this_version_and_have_every_primitive(golden):
    with safe_open(golden / GOLDEN_FILE, framework="numpy") as file:
        assert file.metadata()["world"] == str(WORLD_VERSION)
    kinds = [sample_scenes(seeds).kind.ravel() for seeds in GOLDEN_SPLITS.values()]
    assert {BOX, SPHERE, CYLINDER, CONE} <= set(np.concatenate(kinds).tolist())
    assert sample_scenes(GOLDEN_SEEDS).room.tolist() == [True, False]


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
    other = run_elsewhere(code, tmp_path / "other.safetensors")
    scenes = sample_scenes(GOLDEN_SEEDS)
    for name in ("center", "half", "axes", "texture", "light", "focal"):
        np.testing.assert_array_equal(other["scene_" + name], getattr(scenes, name))
    assert_same_world(as_arrays(golden_render()), other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("split", GOLDEN_SPLITS)
def test_a_gpu_makes_the_same_clip(split):
    seeds = GOLDEN_SPLITS[split]
    assert_same_world(
        as_arrays(golden_render("cuda", seeds)), as_arrays(golden_render("cpu", seeds))
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled_kernels_make_the_same_clip_for_every_split_without_compiling_again(tmp_path):
    """In a process whose functions check no types: a compiler takes the checks for the program."""
    code = f"""
import sys, torch, torch._dynamo
from safetensors.torch import save_file
from explorer.data.world import render, sample_scenes
from explorer.data.world.render import Kernels
kernels, found = Kernels.compiled(), {{}}
for split, seeds in {GOLDEN_SPLITS}.items():
    scenes = sample_scenes([seeds[0]] * 2)
    with torch._dynamo.config.patch(error_on_recompile=bool(found)):
        got = render(scenes, height={HEIGHT}, width={WIDTH}, frames={GOLDEN_FRAMES},
                     device="cuda", kernels=kernels)
    found.update({{f"{{split}}.{{name}}": value for name, value in vars(got).items()}})
save_file(found, sys.argv[1])
"""
    found = run_elsewhere(code, tmp_path / "compiled.safetensors")
    size = {"height": HEIGHT, "width": WIDTH, "frames": GOLDEN_FRAMES}
    for split, seeds in GOLDEN_SPLITS.items():
        plain = as_arrays(render(sample_scenes([seeds[0]] * 2), **size))
        assert_same_world({name: found[f"{split}.{name}"] for name in plain}, plain)


@pytest.mark.parametrize("split", GOLDEN_SPLITS)
def test_the_program_for_compilers_makes_the_same_clip(split):
    """Its slots are padded with objects that no ray meets, and it knows all textures."""
    scenes = sample_scenes(GOLDEN_SPLITS[split])
    size = {"height": HEIGHT, "width": WIDTH, "frames": GOLDEN_FRAMES}
    padded = render(scenes, kernels=replace(EAGER, uniform=True), **size)
    plain = render(scenes, **size)
    assert torch.equal(padded.images, plain.images)
    assert torch.equal(padded.depth, plain.depth)
    assert torch.equal(padded.surface, plain.surface)


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
    alone = replace(
        scenes,
        kind=kind,
        axes=scenes.axes[:, :1],
        center=scenes.center[:, :1],
        cam_from_world=pose,
        focal=np.array([0.7], dtype=np.float32),
    )
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
    away = scenes.center[0, 0, number] - points
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
    tensors = scene_tensors(scenes, "cpu", frames=[0])
    pose = torch.from_numpy(scenes.cam_from_world[:, :1])
    intrinsics = torch.from_numpy(scenes.intrinsics(18, 32))
    colour = shade(tensors, *rays(pose, intrinsics, 18, 32), tensors.spread / 32)
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


def test_textures_show_nothing_finer_than_a_pixel():
    """Far away every texture is close to flat; near by it is not."""
    generator = torch.Generator().manual_seed(0)
    u, v = torch.rand(2, 4000, generator=generator) * 40
    row = sample_scenes(GOLDEN_SEEDS).texture[0, 7].copy()
    row[1:10] = [0, 0, 0, 1, 1, 1, 0.5, 0.5, 0.5]
    row[10] = 1.0
    for number, name in enumerate(TEXTURES):
        row[0] = number
        parameters = [torch.full_like(u, float(value)) for value in row]
        spread = [
            albedo(lattice("cpu"), u, v, torch.full_like(u, width), parameters, names=(name,))[
                0
            ].std()
            for width in (0.02, 0.3, 2.0)
        ]
        assert spread[0] > 0.12
        assert spread[1] < 1.05 * spread[0]
        assert spread[2] < 0.06


def write_golden():
    """Write the stored scenes of this version of the world."""
    tensors = {
        f"{split}.{name}": values
        for split, seeds in GOLDEN_SPLITS.items()
        for name, values in as_arrays(golden_render(seeds=seeds)).items()
    }
    path = Path(__file__).resolve().parents[2] / "golden" / GOLDEN_FILE
    save_file(tensors, path, metadata={"world": str(WORLD_VERSION)})


if __name__ == "__main__":
    write_golden()
