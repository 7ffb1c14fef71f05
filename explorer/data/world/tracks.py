"""Where the surface point that a pixel shows is in another frame, also on objects that move.

A hit point has constant coordinates in the frame of its unit object, so its place in any frame is
that frame's map of them: exact for rigid and for deforming objects. Planes do not move.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from explorer._typing import Bool, Float, Int, UInt8
from explorer.data.world.primitives import Triple
from explorer.data.world.scene import Scenes
from explorer.data.world.spec import FIRST_OBJECT
from explorer.data.world.tensors import scene_tensors
from explorer.data.world.tracing import intersect

_CLOSE = 1e-3  # of the depth: nearer than this to the first hit is visible


@dataclass(frozen=True)
class Tracks:
    """Surface points of B frames, where they are in another frame of the same clips.

    Attributes:
        points: (B, H, W, 3) in the world, at the target frame's time.
        pixels: (B, H, W, 2) where the target frame shows them, pixel centres at +0.5.
        depth: (B, H, W) z-depth in the target frame.
        visible: (B, H, W) in the image, before the camera and hidden by nothing.
    """

    points: Float[Tensor, "B H W 3"]
    pixels: Float[Tensor, "B H W 2"]
    depth: Float[Tensor, "B H W"]
    visible: Bool[Tensor, "B H W"]


def surface_points(
    scenes: Scenes,
    depth: Float[Tensor, "B H W"],
    surface: UInt8[Tensor, "B H W"] | Int[Tensor, "B H W"],
    *,
    source: int,
    target: int,
) -> Float[Tensor, "B H W 3"]:
    """World coordinates at frame `target` of what each pixel shows in frame `source`.

    Pixels of the sky have the camera's own centre.

    Args:
        scenes: B scenes.
        depth: (B, H, W) of frame `source`, at pixel centres.
        surface: (B, H, W) ids of frame `source`.
        source: frame that shows the points.
        target: frame whose time is asked for.
    """
    device, (_, height, width) = depth.device, depth.shape
    intrinsics = _place(scenes.intrinsics(height, width), device)
    pose = _place(scenes.cam_from_world[:, source], device)
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float64) + 0.5,
        torch.arange(width, device=device, dtype=torch.float64) + 0.5,
        indexing="ij",
    )
    pixel = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(-1, 3)
    in_camera = pixel @ torch.linalg.inv(intrinsics).mT * depth.reshape(len(depth), -1, 1).double()
    world = (in_camera - pose[:, None, :, 3]) @ pose[:, :, :3]

    # Row 0 is the identity, for planes; then one map for each object.
    index = torch.clamp(surface.reshape(len(depth), -1).long() - (FIRST_OBJECT - 1), min=0)
    before, after = (_maps(scenes, frame, device) for frame in (source, target))
    carry = after @ torch.linalg.inv(before)
    chosen = carry[torch.arange(len(depth), device=device)[:, None], index]
    moved = (chosen[..., :3, :3] @ world[..., None])[..., 0] + chosen[..., :3, 3]
    return moved.reshape(*depth.shape, 3)


def track(
    scenes: Scenes,
    depth: Float[Tensor, "B H W"],
    surface: UInt8[Tensor, "B H W"] | Int[Tensor, "B H W"],
    *,
    source: int,
    target: int,
) -> Tracks:
    """Follow what each pixel of frame `source` shows to frame `target`.

    Args:
        scenes: B scenes.
        depth: (B, H, W) of frame `source`, at pixel centres.
        surface: (B, H, W) ids of frame `source`; where they are 0 (sky) nothing is visible.
        source: frame that shows the points.
        target: frame in which they are looked for.
    """
    device, (_, height, width) = depth.device, depth.shape
    points = surface_points(scenes, depth, surface, source=source, target=target)
    pose = _place(scenes.cam_from_world[:, target], device)[:, None, None]
    intrinsics = _place(scenes.intrinsics(height, width), device)
    in_camera = (pose[..., :3] @ points[..., None])[..., 0] + pose[..., 3]
    z = in_camera[..., 2]
    ahead = (z > 1e-3) & (surface > 0)
    image = (intrinsics[:, None, None] @ in_camera[..., None])[..., :2, 0]
    pixels = image / torch.where(ahead, z, torch.ones_like(z))[..., None]
    limit = torch.tensor([width, height], device=device)
    inside = ahead & (pixels >= 0).all(dim=-1) & (pixels < limit).all(dim=-1)

    scene = scene_tensors(scenes, str(device), frames=[target])
    center = -(pose[..., :3].mT @ pose[..., 3:])[:, 0, 0, :, 0]
    ray = ((points - center[:, None, None]) / z[..., None]).reshape(len(depth), 1, -1, 3).float()
    first, _ = intersect(scene, _triple(center[:, None, None].float()), _triple(ray))
    seen = first.reshape(z.shape) > z * (1 - _CLOSE)
    return Tracks(points, pixels, z, inside & seen)


def _triple(vectors: Tensor) -> Triple:
    return vectors[..., 0], vectors[..., 1], vectors[..., 2]


def _place(array: np.ndarray, device: torch.device) -> Float[Tensor, "..."]:
    return torch.from_numpy(np.array(array, dtype=np.float64)).to(device)


def _maps(scenes: Scenes, frame: int, device: torch.device) -> Float[Tensor, "B M 4 4"]:
    """World-from-unit maps: the identity for everything that is no object, then the objects'."""
    batch, objects = scenes.kind.shape
    maps = np.tile(np.eye(4), (batch, 1 + objects, 1, 1))
    maps[:, 1:, :3, :3] = scenes.axes[:, frame]
    maps[:, 1:, :3, 3] = scenes.center[:, frame]
    return _place(maps, device)
