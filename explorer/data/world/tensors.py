"""Scenes as tensors on a device: surfaces in tables, objects in groups of one primitive a slot."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from explorer._typing import Float, Int
from explorer.data.world.noise import lattice
from explorer.data.world.primitives import KINDS
from explorer.data.world.scene import Scenes
from explorer.data.world.spec import FIRST_OBJECT, SURFACES, TEXTURES, WALL_LEFT

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
        texture: (17, B, T, 7 + N) parameters of each surface.
        table: of `noise.lattice`.
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
    table: Tensor
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
        uniform: give every group one slot of each primitive, all tensors all frames, and name all
            textures, so that a compiler sees one program whatever the scenes contain and however
            many there are.
    """
    count = scenes.axes.shape[1] if frames is None else len(frames)

    def place(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    def for_all_frames(table: Tensor) -> Tensor:
        return alone(table.expand(*table.shape[:2], count, -1))

    def alone(table: Tensor) -> Tensor:
        # Compilers make another program for a tensor that starts within another one's memory.
        return table.clone(memory_format=torch.contiguous_format) if uniform else table

    def rows(table: Tensor) -> Tensor:
        # Compilers take sizes that are equal once for one size: 16 rows, and 16 scenes of a batch.
        if uniform:
            from torch._dynamo import mark_static  # takes a second, and only compilers need it

            mark_static(table, 0)
        return table

    maps = _unit_from_world(scenes, frames)
    names, numbers, matrices = _slots(scenes.kind, maps, uniform)
    ids, placed = place((FIRST_OBJECT + numbers).astype(np.int32)), place(matrices)
    slots = [
        Slot(name, alone(ids[index, :, None, None]), rows(for_all_frames(placed[index])))
        for index, name in enumerate(sum(names, []))
    ]
    ends = np.cumsum([0] + [len(group) for group in names]).tolist()
    groups = [tuple(slots[low:high]) for low, high in zip(ends[:-1], ends[1:], strict=True)]

    occurs = np.ones((len(scenes.kind), SURFACES), dtype=bool)
    occurs[:, 0], occurs[:, WALL_LEFT:FIRST_OBJECT] = False, scenes.room[:, None]
    occurs[:, FIRST_OBJECT:] = scenes.kind > 0
    kinds = set(scenes.texture[:, :, 0][occurs].astype(int).tolist())
    return SceneTensors(
        room=place(scenes.room[:, None, None]),
        low=rows(place(scenes.room_min.T[:, :, None, None])),
        high=rows(place(scenes.room_max.T[:, :, None, None])),
        light=rows(place(scenes.light.T[:, :, None, None])),
        ambient=place(scenes.ambient[:, None, None]),
        sky=rows(place(scenes.sky.transpose(1, 2, 0)[..., None, None])),
        spread=place(1.0 / scenes.focal[:, None, None]),
        surfaces=rows(for_all_frames(place(_surface_table(scenes, maps)))),
        texture=rows(for_all_frames(place(scenes.texture.transpose(2, 0, 1)[:, :, None]))),
        table=rows(lattice(device)),
        groups=tuple(groups),
        primitives=tuple(n for n, kind in KINDS.items() if uniform or (scenes.kind == kind).any()),
        textures=tuple(n for i, n in enumerate(TEXTURES) if uniform or i in kinds),
    )


def _unit_from_world(scenes: Scenes, frames: list[int] | None) -> Float[np.ndarray, "B K N 12"]:
    """3x4 matrices of the objects, row by row; K is 1 where nothing moves."""
    axes = scenes.axes if frames is None else scenes.axes[:, frames]
    center = scenes.center if frames is None else scenes.center[:, frames]
    if not scenes.motion.any():
        axes, center = axes[:, :1], center[:, :1]
    inverse = np.linalg.inv(axes.astype(np.float64))
    offset = -np.einsum("btnij,btnj->btni", inverse, center.astype(np.float64))
    both = np.concatenate([inverse, offset[..., None]], axis=-1)
    return both.reshape(*axes.shape[:3], 12).astype(np.float32)


def _slots(
    kind: Int[np.ndarray, "B N"], maps: Float[np.ndarray, "B K N 12"], uniform: bool
) -> tuple[list[list[str]], Int[np.ndarray, "G B"], Float[np.ndarray, "G 12 B K 1"]]:
    """(primitives of the slots of each group, objects in all slots, their matrices).

    A slot holds the next object of its primitive in each scene, or none, which no ray meets.
    """
    batch, objects = kind.shape
    order, sizes = {}, {}
    for name, number in KINDS.items():
        mine = kind == number
        first = np.argsort(~mine, axis=1, kind="stable")
        order[name] = np.where(np.take_along_axis(mine, first, axis=1), first, objects)
        sizes[name] = int(mine.sum(axis=1).max())
    names = [
        [name for name in KINDS if index < sizes[name] or uniform]
        for index in range(max(sizes.values()))
    ]
    picked = [order[name][:, index] for index, group in enumerate(names) for name in group]
    numbers = np.array(picked, dtype=np.int64).reshape(-1, batch)
    away = np.zeros((batch, maps.shape[1], 1, 12), dtype=np.float32)
    away[..., [3, 7, 11]] = _AWAY
    padded = np.concatenate([maps, away], axis=2)
    matrices = padded[np.arange(batch), :, numbers]
    return names, numbers, matrices.transpose(0, 3, 1, 2)[..., None]


def _surface_table(
    scenes: Scenes, maps: Float[np.ndarray, "B K N 12"]
) -> Float[np.ndarray, "16 B K M"]:
    """Kind, half extents and unit_from_world of each surface; planes are in world coordinates."""
    batch, count = maps.shape[:2]
    table = np.zeros((16, batch, count, SURFACES), dtype=np.float32)
    table[0, :, :, FIRST_OBJECT:] = scenes.kind[:, None]
    table[1:4] = 1.0
    table[1:4, :, :, FIRST_OBJECT:] = scenes.half.transpose(2, 0, 1)[:, :, None]
    table[4:] = np.eye(3, 4, dtype=np.float32).reshape(12, 1, 1, 1)
    table[4:, :, :, FIRST_OBJECT:] = maps.transpose(3, 0, 1, 2)
    return table
