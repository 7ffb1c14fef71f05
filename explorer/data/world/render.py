"""Clips of scenes: images by supersampling, geometry exactly at the pixel centres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from explorer._typing import Float, UInt8
from explorer.data.world.scene import MAX_OBJECTS, Scenes
from explorer.data.world.shading import Paint, light_up, paint_hits
from explorer.data.world.tracing import (
    Triple,
    intersect,
    object_depth,
    object_of,
    rays,
    scene_tensors,
)


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
    """The arithmetic of the tracer; `compiled()` fuses each part into a few GPU kernels."""

    object_depth: Callable[..., Tensor] = object_depth
    paint: Callable[..., Paint] = paint_hits
    light_up: Callable[..., Tensor] = light_up

    @classmethod
    def compiled(cls) -> Kernels:
        """Compiled for any shape; three small parts compile faster than one large one."""
        return cls(
            torch.compile(object_depth, dynamic=True),
            torch.compile(paint_hits, dynamic=True),
            torch.compile(light_up, dynamic=True),
        )


EAGER = Kernels()


def shade(
    scene: dict[str, Tensor], origin: Triple, ray: Triple, kernels: Kernels = EAGER
) -> Float[Tensor, "3 B R"]:
    """Colours in [0, 1] of rays: texture times light with hard shadows, or the sky.

    Args:
        scene: `scene_tensors`.
        origin: x, y and z of the rays' origins, (B, R) each; world frame.
        ray: x, y and z of their directions, (B, R) each.
        kernels: compiled versions of the arithmetic.
    """
    depth, surface = intersect(scene, origin, ray, kernel=kernels.object_depth)
    paint = kernels.paint(scene, origin, ray, depth, surface)
    blocked = torch.zeros_like(surface, dtype=torch.bool)
    for index in range(MAX_OBJECTS):
        t = kernels.object_depth(*object_of(scene, index), paint.lifted, paint.light)
        blocked = blocked | (t < 1.0)
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
    tensors = scene_tensors(scenes, device)
    poses = scenes.cam_from_world if frames is None else scenes.cam_from_world[:, frames]
    cam_from_world = torch.from_numpy(np.ascontiguousarray(poses)).to(device)
    intrinsics = torch.from_numpy(scenes.intrinsics(height, width)).to(device)
    batch, count = cam_from_world.shape[:2]
    shape = (batch, count, height, width)
    with torch.inference_mode():
        total = torch.zeros(3, batch, count * height * width if images else 0, device=device)
        for sample in range(supersample**2 if images else 0):
            offset = (
                (sample % supersample + 0.5) / supersample,
                (sample // supersample + 0.5) / supersample,
            )
            origin, ray = rays(cam_from_world, intrinsics, height, width, offset=offset)
            total = total + shade(tensors, origin, ray, kernels)
        mean = (total / supersample**2 * 255.0 + 0.5).to(torch.uint8).permute(1, 2, 0)
        pictures = mean.reshape(batch, count if images else 0, height, width, 3)
        origin, ray = rays(cam_from_world, intrinsics, height, width)
        depth, surface = intersect(tensors, origin, ray, kernel=kernels.object_depth)
        depth = torch.where(surface > 0, depth, torch.zeros_like(depth))
    return Rendered(
        images=pictures.contiguous(),
        depth=depth.reshape(shape),
        surface=surface.to(torch.uint8).reshape(shape),
        cam_from_world=cam_from_world,
        intrinsics=intrinsics,
    )
