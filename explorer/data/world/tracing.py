"""Rays through pixels, and what they hit first.

Rays are parametrised by z-depth (direction with z_cam = 1), so the ray parameter of a hit is its
depth. All tensors are (B, T, R): scenes by frames by rays; the coordinates are separate tensors,
which a compiler can fuse into one kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from explorer._typing import Float
from explorer.data.world.primitives import FAR, FIRST_HIT, NEAR, Triple
from explorer.data.world.tensors import SceneTensors, Slot

if TYPE_CHECKING:
    from explorer.data.world.render import Kernels

_SKY_LIMIT = 12.0  # an open ground ends here; beyond it is sky


def rays(
    cam_from_world: Float[Tensor, "B T 3 4"],
    intrinsics: Float[Tensor, "B 3 3"],
    height: int,
    width: int,
    *,
    offset: tuple[float, float] = (0.5, 0.5),
) -> tuple[Triple, Triple]:
    """Origins (B, T, 1) and directions (B, T, H*W), x, y and z each, of one ray for every pixel.

    Args:
        cam_from_world: (B, T, 3, 4), OpenCV axes.
        intrinsics: (B, 3, 3) in pixels of (height, width).
        height: of the images in pixels.
        width: of the images in pixels.
        offset: (x, y) of the ray in its pixel; (0.5, 0.5) is the centre.
    """
    device = cam_from_world.device
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32) + offset[1],
        torch.arange(width, device=device, dtype=torch.float32) + offset[0],
        indexing="ij",
    )
    x, y = x.reshape(1, -1), y.reshape(1, -1)
    camera_x = ((x - intrinsics[:, 0, 2, None]) / intrinsics[:, 0, 0, None])[:, None]
    camera_y = ((y - intrinsics[:, 1, 2, None]) / intrinsics[:, 1, 1, None])[:, None]
    rotation, translation = cam_from_world[..., :3], cam_from_world[..., 3]
    # Written out: a GPU may round what goes into matrix products to ten bits.
    tx, ty, tz = translation[..., None].unbind(2)
    origin, direction = [], []
    for axis in range(3):
        dx, dy, dz = rotation[:, :, :, axis, None].unbind(2)
        direction.append(dx * camera_x + dy * camera_y + dz)
        origin.append(-(dx * tx + dy * ty + dz * tz))
    return (origin[0], origin[1], origin[2]), (direction[0], direction[1], direction[2])


def _to_unit(matrix: Sequence[Tensor], vector: Triple, shift: bool) -> Triple:
    x, y, z = vector
    rows = [matrix[4 * i] * x + matrix[4 * i + 1] * y + matrix[4 * i + 2] * z for i in range(3)]
    if shift:
        rows = [row + matrix[4 * i + 3] for i, row in enumerate(rows)]
    return rows[0], rows[1], rows[2]


def first_hit(slot: Slot, origin: Triple, ray: Triple) -> Tensor:
    """Ray parameter (B, T, R) of the first hit of one object a scene, `FAR` without one.

    Args:
        slot: the objects.
        origin: x, y and z of the rays' origins, (B, T, R or 1) each; world frame.
        ray: x, y and z of their directions, (B, T, R) each.
    """
    matrix = slot.unit_from_world.unbind()
    return FIRST_HIT[slot.primitive](_to_unit(matrix, origin, True), _to_unit(matrix, ray, False))


def enclosure(
    room: Tensor, low: Tensor, high: Tensor, origin: Triple, ray: Triple
) -> tuple[Tensor, Tensor]:
    """(depth, surface id) of the room's planes or the open ground, seen from inside."""
    best, surface = torch.full_like(ray[0], FAR), torch.zeros_like(ray[0], dtype=torch.int32)
    for axis, negative, positive in ((0, 2, 3), (1, 6, 1), (2, 4, 5)):
        o, d = origin[axis], ray[axis]
        ahead = d > 0
        t = (torch.where(ahead, high[axis], low[axis]) - o) / torch.where(
            torch.abs(d) < 1e-8, 1e-8, d
        )
        hit = room & (t > NEAR)
        if axis == 1:
            x, z = origin[0] + t * ray[0], origin[2] + t * ray[2]
            hit = hit | (~room & ahead & (t > NEAR) & (x * x + z * z < _SKY_LIMIT**2))
        closer = hit & (t < best)
        best = torch.where(closer, t, best)
        surface = torch.where(closer, torch.where(ahead, positive, negative).int(), surface)
    return best, surface


def nearest(
    best: Tensor, surface: Tensor, group: tuple[Slot, ...], origin: Triple, ray: Triple
) -> tuple[Tensor, Tensor]:
    """(depth, surface id) once a group of objects has been met as well."""
    for slot in group:
        t = first_hit(slot, origin, ray)
        closer = t < best
        best = torch.where(closer, t, best)
        surface = torch.where(closer, slot.number, surface)
    return best, surface


def shadowed(blocked: Tensor, group: tuple[Slot, ...], origin: Triple, ray: Triple) -> Tensor:
    """Whether something lies before the end of the rays once a group has been met as well."""
    for slot in group:
        blocked = blocked | (first_hit(slot, origin, ray) < 1.0)
    return blocked


def intersect(
    scene: SceneTensors, origin: Triple, ray: Triple, *, kernels: Kernels | None = None
) -> tuple[Tensor, Tensor]:
    """(depth, surface id) of the first hit of each ray; depth is `FAR` and the id 0 in the sky.

    Args:
        scene: `scene_tensors`.
        origin: x, y and z of the rays' origins, (B, T, R or 1) each; world frame.
        ray: x, y and z of their directions, (B, T, R) each; depth counts in their lengths.
        kernels: compiled versions of the functions above.
    """
    around = enclosure if kernels is None else kernels.enclosure
    meet = nearest if kernels is None else kernels.nearest
    best, surface = around(scene.room, scene.low, scene.high, origin, ray)
    for group in scene.groups:
        best, surface = meet(best, surface, group, origin, ray)
    return best, surface
