"""Clips of scenes: images by supersampling, geometry exactly at the pixel centres."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from explorer._typing import Float, UInt8
from explorer.data.world.primitives import Triple
from explorer.data.world.scene import Scenes
from explorer.data.world.shading import Paint, light_up, paint_hits
from explorer.data.world.tensors import SceneTensors, scene_tensors
from explorer.data.world.tracing import enclosure, intersect, nearest, rays, shadowed


@dataclass(frozen=True)
class Rendered:
    """B rendered clips.

    Attributes:
        images: (B, F, H, W, 3) uint8; F is T, or 0 where only geometry was asked for.
        depth: (B, T, H, W) float32 z-depth at the pixel centre, 0 in the sky.
        surface: (B, T, H, W) uint8, 0 sky, 1 floor, 2-5 walls, 6 ceiling, then objects.
        cam_from_world: (B, T, 3, 4), OpenCV axes.
        intrinsics: (B, 3, 3) in pixels of (H, W), pixel centres at +0.5.
    """

    images: UInt8[Tensor, "B F H W 3"]
    depth: Float[Tensor, "B T H W"]
    surface: UInt8[Tensor, "B T H W"]
    cam_from_world: Float[Tensor, "B T 3 4"]
    intrinsics: Float[Tensor, "B 3 3"]


@dataclass(frozen=True)
class Kernels:
    """The arithmetic of the tracer; `compiled()` fuses each part into a few GPU kernels.

    Attributes:
        enclosure, nearest, shadowed, paint, light_up: see `tracing.py` and `shading.py`.
        uniform: for compilers: all groups of objects look alike, see `scene_tensors`.
    """

    enclosure: Callable[..., tuple[Tensor, Tensor]] = enclosure
    nearest: Callable[..., tuple[Tensor, Tensor]] = nearest
    shadowed: Callable[..., Tensor] = shadowed
    paint: Callable[..., Paint] = paint_hits
    light_up: Callable[..., Tensor] = light_up
    uniform: bool = False

    @classmethod
    def compiled(cls) -> Kernels:
        """Compiled for any shape; small parts compile faster than one large one."""
        return cls(
            torch.compile(enclosure, dynamic=True),
            torch.compile(nearest, dynamic=True),
            torch.compile(shadowed, dynamic=True),
            torch.compile(paint_hits, dynamic=True),
            torch.compile(light_up, dynamic=True),
            uniform=True,
        )


EAGER = Kernels()


@contextmanager
def _for_compilers(kernels: Kernels) -> Iterator[None]:
    """What a compiler asks about a process, the same in every process, while compiled kernels run.

    Its cache would keep one program for processes that allow TF32 and another for the others,
    though no kernel multiplies matrices; and it would trace named constants as symbols, find that
    none can vary, and trace everything again.
    """
    if not kernels.uniform:
        yield
        return
    import torch._dynamo

    matmul = torch.backends.cuda.matmul
    allowed = matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        with torch._dynamo.config.patch(specialize_float=True):
            yield
    finally:
        matmul.allow_tf32 = allowed


def shade(
    scene: SceneTensors, origin: Triple, ray: Triple, pixel: Tensor, kernels: Kernels = EAGER
) -> Float[Tensor, "3 B T R"]:
    """Colours in [0, 1] of rays: texture times light with hard shadows, or the sky.

    Args:
        scene: `scene_tensors`.
        origin: x, y and z of the rays' origins, (B, T, R or 1) each; world frame.
        ray: x, y and z of their directions, (B, T, R) each.
        pixel: (B, 1, 1) width at z-depth 1 of what one ray stands for; textures show nothing finer.
        kernels: compiled versions of the arithmetic.
    """
    depth, surface = intersect(scene, origin, ray, kernels=kernels)
    paint = kernels.paint(
        scene.table, scene.surfaces, scene.texture, scene.light, scene.ambient, scene.sky, pixel,
        origin, ray, depth, surface, primitives=scene.primitives, textures=scene.textures,
    )  # fmt: skip
    blocked = torch.zeros_like(surface, dtype=torch.bool)
    for group in scene.groups:
        blocked = kernels.shadowed(blocked, group, paint.lifted, paint.light)
    lit: Tensor = kernels.light_up(paint, surface > 0, blocked)
    return lit


def render(
    scenes: Scenes,
    *,
    height: int,
    width: int,
    supersample: int = 2,
    device: str = "cpu",
    frames: list[int] | None = None,
    kernels: Kernels = EAGER,
    images: bool = True,
) -> Rendered:
    """Images and exact geometry of scenes.

    Args:
        scenes: B scenes.
        height: of the images in pixels.
        width: of the images in pixels.
        supersample: rays a pixel along each axis for the images (geometry has one, at the centre).
        device: where to render, "cpu" or "cuda:0" for example.
        frames: which frames of the path, default all.
        kernels: `Kernels.compiled()` is faster where many scenes are rendered.
        images: whether to make pictures; without them `images` has no frames.
    """
    everything = list(range(scenes.cam_from_world.shape[1]))
    wanted = everything if frames is None else [everything[frame] for frame in frames]
    # One frame at a time keeps the rays of a frame in a processor's cache.
    parts = [[frame] for frame in wanted] if device == "cpu" else [wanted]
    size = (height, width)
    with torch.inference_mode(), _for_compilers(kernels):
        found = [
            _render_frames(scenes, part, size, supersample if images else 0, device, kernels)
            for part in parts
        ]
    pictures, depth, surface = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
    poses = np.ascontiguousarray(scenes.cam_from_world[:, wanted])
    return Rendered(
        images=pictures,
        depth=depth,
        surface=surface,
        cam_from_world=torch.from_numpy(poses).to(device),
        intrinsics=torch.from_numpy(scenes.intrinsics(height, width)).to(device),
    )


def _render_frames(
    scenes: Scenes,
    frames: list[int],
    size: tuple[int, int],
    supersample: int,
    device: str,
    kernels: Kernels,
) -> tuple[Tensor, Tensor, Tensor]:
    """(images, depth, surface) of some frames."""
    height, width = size
    scene = scene_tensors(scenes, device, frames=frames, uniform=kernels.uniform)
    poses = np.ascontiguousarray(scenes.cam_from_world[:, frames])
    cam_from_world = torch.from_numpy(poses).to(device)
    intrinsics = torch.from_numpy(scenes.intrinsics(height, width)).to(device)
    batch, count = cam_from_world.shape[:2]
    drawn = count if supersample else 0
    total = torch.zeros(3, batch, drawn, height * width, device=device)
    for sample in range(supersample**2):
        offset = (
            (sample % supersample + 0.5) / supersample,
            (sample // supersample + 0.5) / supersample,
        )
        origin, ray = rays(cam_from_world, intrinsics, height, width, offset=offset)
        pixel = scene.spread * (1.0 / (width * supersample))
        total = total + shade(scene, origin, ray, pixel, kernels)
    mean = (total / max(supersample**2, 1) * 255.0 + 0.5).to(torch.uint8).permute(1, 2, 3, 0)
    origin, ray = rays(cam_from_world, intrinsics, height, width)
    depth, surface = intersect(scene, origin, ray, kernels=kernels)
    depth = torch.where(surface > 0, depth, torch.zeros_like(depth))
    shape = (batch, count, height, width)
    return (
        mean.reshape(batch, drawn, height, width, 3).contiguous(),
        depth.reshape(shape),
        surface.to(torch.uint8).reshape(shape),
    )
