"""Rays through pixels, and what they hit first.

Rays are parametrised by z-depth (direction with z_cam = 1), so the ray parameter of a hit is its
depth. All tensors are (B, T, R): scenes by frames by rays; the coordinates are separate tensors,
which a compiler can fuse into one kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from explorer._typing import Float
from explorer.data.world.primitives import FAR, FIRST_HIT, KINDS, NEAR, Triple
from explorer.data.world.scene import Scenes
from explorer.data.world.spec import FIRST_OBJECT, SURFACES, TEXTURES, WALL_LEFT

if TYPE_CHECKING:
    from explorer.data.world.render import Kernels

_SKY_LIMIT = 12.0  # an open ground ends here; beyond it is sky
_AWAY = 2.0  # where the rays of an object that does not exist stay, in its frame


class Slot(NamedTuple):
    """One object a scene, all of one primitive.

    Attributes:
        primitive: its name.
        number: (B, 1, 1) int32 surface ids.
        unit_from_world: twelve numbers in the order of a 3x4 matrix, (12, B, T, 1).
    """

    primitive: str
    number: Tensor
    unit_from_world: Tensor


class SceneTensors(NamedTuple):
    """Scenes on a device, for T frames.

    Attributes:
        room: (B, 1, 1) bool; low, high: (3, B, 1, 1) its corners.
        light: (3, B, 1, 1); ambient: (B, 1, 1); sky: (2, 3, B, 1, 1).
        spread: (B, 1, 1) width of a pixel of an image one pixel wide, at z-depth 1.
        surfaces: (16, B, T, 7 + N): kind, half extents, unit_from_world of each surface.
        texture: (16, B, T, 7 + N) parameters of each surface.
        groups: objects in groups that one call of a kernel takes.
        primitives, textures: names of those that occur, or all where kernels are compiled.
    """

    room: Tensor
    low: Tensor
    high: Tensor
    light: Tensor
    ambient: Tensor
    sky: Tensor
    spread: Tensor
    surfaces: Tensor
    texture: Tensor
    groups: tuple[tuple[Slot, ...], ...]
    primitives: tuple[str, ...]
    textures: tuple[str, ...]


def scene_tensors(
    scenes: Scenes, device: str, *, frames: list[int] | None = None, uniform: bool = False
) -> SceneTensors:
    """The scenes' arrays as tensors on a device.

    Args:
        scenes: B scenes.
        device: "cpu" or "cuda:0" for example.
        frames: which frames of the scenes, default all.
        uniform: give every group one slot of each primitive and name all textures, so that a
            compiler sees one program whatever the scenes contain.
    """
    axes = scenes.axes if frames is None else scenes.axes[:, frames]
    center = scenes.center if frames is None else scenes.center[:, frames]
    batch, count, objects = axes.shape[:3]
    if not (uniform or scenes.motion.any()):
        axes, center = axes[:, :1], center[:, :1]
    inverse = np.linalg.inv(axes.astype(np.float64))
    offset = -np.einsum("btnij,btnj->btni", inverse, center.astype(np.float64))
    maps = np.concatenate([inverse, offset[..., None]], axis=-1).reshape(*axes.shape[:3], 12)

    # Rows of a last, absent object pad the slots.
    away = np.zeros((*maps.shape[:2], 1, 12))
    away[..., [3, 7, 11]] = _AWAY
    padded = np.ascontiguousarray(np.concatenate([maps, away], axis=2), dtype=np.float32)
    order, sizes = [], []
    for kind in KINDS.values():
        mine = scenes.kind == kind
        size = int(mine.sum(axis=1).max())
        first = np.argsort(~mine, axis=1, kind="stable")[:, :size]
        order.append(np.where(np.take_along_axis(mine, first, axis=1), first, objects))
        sizes.append(size)

    def place(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    def for_all_frames(table: Tensor) -> Tensor:
        expanded = table.expand(-1, -1, count, -1)
        return expanded.contiguous() if uniform else expanded

    groups = []
    for index in range(max(sizes)):
        slots = []
        for name, size, numbers in zip(KINDS, sizes, order, strict=True):
            if index < size or uniform:
                number = numbers[:, index] if index < size else np.full(batch, objects)
                matrix = place(padded[np.arange(batch), :, number].transpose(2, 0, 1)[..., None])
                ids = place((FIRST_OBJECT + number).astype(np.int32)[:, None, None])
                slots.append(Slot(name, ids, for_all_frames(matrix)))
        groups.append(tuple(slots))

    table = np.zeros((16, batch, maps.shape[1], SURFACES), dtype=np.float32)
    table[0, :, :, FIRST_OBJECT:] = scenes.kind[:, None]
    table[1:4] = 1.0
    table[1:4, :, :, FIRST_OBJECT:] = scenes.half.transpose(2, 0, 1)[:, :, None]
    table[4:] = np.eye(3, 4, dtype=np.float32).reshape(12, 1, 1, 1)  # planes: world coordinates
    table[4:, :, :, FIRST_OBJECT:] = maps.transpose(3, 0, 1, 2)
    texture = place(scenes.texture.transpose(2, 0, 1)[:, :, None])
    occurs = np.ones((batch, SURFACES), dtype=bool)
    occurs[:, 0], occurs[:, WALL_LEFT:FIRST_OBJECT] = False, scenes.room[:, None]
    occurs[:, FIRST_OBJECT:] = scenes.kind > 0
    kinds = set(scenes.texture[:, :, 0][occurs].astype(int).tolist())
    return SceneTensors(
        room=place(scenes.room[:, None, None]),
        low=place(scenes.room_min.T[:, :, None, None]),
        high=place(scenes.room_max.T[:, :, None, None]),
        light=place(scenes.light.T[:, :, None, None]),
        ambient=place(scenes.ambient[:, None, None]),
        sky=place(scenes.sky.transpose(1, 2, 0)[..., None, None]),
        spread=place(1.0 / scenes.focal[:, None, None]),
        surfaces=for_all_frames(place(table)),
        texture=for_all_frames(texture),
        groups=tuple(groups),
        primitives=tuple(n for n, kind in KINDS.items() if uniform or (scenes.kind == kind).any()),
        textures=tuple(n for i, n in enumerate(TEXTURES) if uniform or i in kinds),
    )


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
    center = -torch.einsum("btji,btj->bti", rotation, translation)
    origin, direction = [], []
    for axis in range(3):
        column = rotation[:, :, :, axis, None]
        direction.append(column[:, :, 0] * camera_x + column[:, :, 1] * camera_y + column[:, :, 2])
        origin.append(center[:, :, axis, None])
    return (origin[0], origin[1], origin[2]), (direction[0], direction[1], direction[2])


def _to_unit(matrix: Tensor, vector: Triple, shift: bool) -> Triple:
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
    matrix = slot.unit_from_world
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
