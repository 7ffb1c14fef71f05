"""Scene parameters from seeds.

All randomness of a scene is one block of uniforms from numpy's PCG64, so a seed means the same
scene on every machine; everything after that is arithmetic on a whole batch at once.

World axes: x right, y down, z forward; the floor is y = 0 and up is -y. One unit is about a metre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from explorer._typing import Bool, Float, Int
from explorer.data.world.camera_path import camera_paths
from explorer.data.world.draws import Draws

FLOOR, WALL_LEFT, WALL_RIGHT, WALL_BACK, WALL_FRONT, CEILING = 1, 2, 3, 4, 5, 6
FIRST_OBJECT = 7  # surface ids: 0 is the sky, 1-6 the room's planes, then the objects
MAX_OBJECTS = 10
TEXTURE_KINDS = 11
TEXTURE_PARAMS = 16  # kind, 3 colours, scale, cos, sin, two offsets, hash seed
BOX, SPHERE = 1, 2
_OBJECT_REACH = 1.9  # objects stay inside this distance from the centre; cameras mostly outside


@dataclass(frozen=True)
class WorldSpec:
    """What a family of scenes may contain.

    Attributes:
        frames: T, frames of a clip.
        objects: fewest and most objects.
        fov_degrees: horizontal field of view, lowest and highest.
        rooms: fraction of rooms; the others are open grounds under a sky.
    """

    frames: int = 17
    objects: tuple[int, int] = (3, 10)
    fov_degrees: tuple[float, float] = (35.0, 75.0)
    rooms: float = 0.65


@dataclass(frozen=True)
class Scenes:
    """B scenes as arrays.

    Attributes:
        room: (B,) whether there are walls and a ceiling.
        room_min, room_max: (B, 3) corners of the room; the floor is at y = 0 = room_max[1].
        kind: (B, N) 0 none, 1 box, 2 sphere.
        center, half: (B, N, 3) centre and half extents (a sphere's radius is half[0]).
        yaw: (B, N) rotation about y.
        texture: (B, 7 + N, 16) parameters of each surface's texture, see `textures.py`.
        light: (B, 3) position of the light; ambient: (B,) share of light without direction.
        sky: (B, 2, 3) colours at the horizon and above.
        cam_from_world: (B, T, 3, 4); focal: (B,) focal length in image widths.
        seeds: (B,).
    """

    room: Bool[np.ndarray, " B"]
    room_min: Float[np.ndarray, "B 3"]
    room_max: Float[np.ndarray, "B 3"]
    kind: Int[np.ndarray, "B N"]
    center: Float[np.ndarray, "B N 3"]
    half: Float[np.ndarray, "B N 3"]
    yaw: Float[np.ndarray, "B N"]
    texture: Float[np.ndarray, "B M 16"]
    light: Float[np.ndarray, "B 3"]
    ambient: Float[np.ndarray, " B"]
    sky: Float[np.ndarray, "B 2 3"]
    cam_from_world: Float[np.ndarray, "B T 3 4"]
    focal: Float[np.ndarray, " B"]
    seeds: Int[np.ndarray, " B"]

    def intrinsics(self, height: int, width: int) -> Float[np.ndarray, "B 3 3"]:
        """(B, 3, 3) intrinsics in pixels of (height, width); the principal point is central."""
        matrix = np.zeros((len(self.focal), 3, 3), dtype=np.float32)
        matrix[:, 0, 0] = matrix[:, 1, 1] = self.focal * width
        matrix[:, 0, 2], matrix[:, 1, 2], matrix[:, 2, 2] = width / 2, height / 2, 1.0
        return matrix


def sample_scenes(seeds: Sequence[int], spec: WorldSpec | None = None) -> Scenes:
    """The scenes that belong to the seeds.

    Args:
        seeds: B seeds; a scene depends on its own seed and the specification alone.
        spec: what the scenes may contain, default `WorldSpec()`.
    """
    spec = spec or WorldSpec()
    draws = Draws(seeds)
    count = len(seeds)
    room = draws.one() < spec.rooms
    room_max = np.stack([draws.span(2.9, 4.6), np.zeros(count), draws.span(2.9, 4.6)], axis=1)
    room_min = -room_max.copy()
    room_min[:, 1] = -draws.span(2.2, 3.4)
    kind, center, half, yaw = _objects(draws, spec)
    light_angle, light_radius = draws.span(0, 2 * np.pi), draws.span(0.4, 1.8)
    inside = np.stack(
        [
            light_radius * np.cos(light_angle),
            room_min[:, 1] + 0.25,
            light_radius * np.sin(light_angle),
        ],
        axis=1,
    )
    sun_height = draws.span(0.6, 1.3)
    sun = 40.0 * np.stack(
        [
            np.cos(light_angle) * np.cos(sun_height),
            -np.sin(sun_height),
            np.sin(light_angle) * np.cos(sun_height),
        ],
        axis=1,
    )
    fov = np.deg2rad(draws.span(*spec.fov_degrees))
    sky_low = 0.55 + 0.4 * draws.many(3)
    sky_high = np.stack([draws.span(0.2, 0.6), draws.span(0.35, 0.7), draws.span(0.6, 1.0)], axis=1)
    texture = _textures(draws)
    ambient = draws.span(0.35, 0.55)
    cameras = camera_paths(
        draws, spec.frames, room, room_min, room_max, center, half, kind, _OBJECT_REACH
    )
    return Scenes(
        room=room,
        room_min=room_min.astype(np.float32),
        room_max=room_max.astype(np.float32),
        kind=kind,
        center=center.astype(np.float32),
        half=half.astype(np.float32),
        yaw=yaw.astype(np.float32),
        texture=texture.astype(np.float32),
        light=np.where(room[:, None], inside, sun).astype(np.float32),
        ambient=ambient.astype(np.float32),
        sky=np.stack([sky_low, sky_high], axis=1).astype(np.float32),
        cam_from_world=cameras.astype(np.float32),
        focal=(0.5 / np.tan(fov / 2)).astype(np.float32),
        seeds=np.asarray(seeds, dtype=np.int64),
    )


def _objects(
    draws: Draws, spec: WorldSpec
) -> tuple[
    Int[np.ndarray, "B N"],
    Float[np.ndarray, "B N 3"],
    Float[np.ndarray, "B N 3"],
    Float[np.ndarray, "B N"],
]:
    count = draws.count
    low, high = spec.objects
    wanted = low + np.floor(draws.one() * (high - low + 1)).astype(np.int64)
    present = np.arange(MAX_OBJECTS)[None] < wanted[:, None]
    is_box = draws.many(MAX_OBJECTS) < 0.6
    kind = np.where(present, np.where(is_box, BOX, SPHERE), 0)
    half = 0.16 + 0.42 * draws.many(MAX_OBJECTS * 3).reshape(count, MAX_OBJECTS, 3) ** 1.5
    half[:, :, 0] = np.where(is_box, half[:, :, 0], np.minimum(half[:, :, 0], 0.5))
    half[:, :, 1] = np.where(is_box, half[:, :, 1] * 1.3, half[:, :, 0])
    half[:, :, 2] = np.where(is_box, half[:, :, 2], half[:, :, 0])
    yaw = draws.many(MAX_OBJECTS) * np.pi
    lift = np.where(draws.many(MAX_OBJECTS) < 0.2, draws.many(MAX_OBJECTS) * 1.0, 0.0)
    center = np.zeros((count, MAX_OBJECTS, 3))
    center[:, :, 1] = -half[:, :, 1] - lift
    reach = np.hypot(half[:, :, 0], half[:, :, 2])
    tries = 6
    radius = np.sqrt(draws.many(MAX_OBJECTS * tries)).reshape(count, MAX_OBJECTS, tries)
    angle = 2 * np.pi * draws.many(MAX_OBJECTS * tries).reshape(count, MAX_OBJECTS, tries)
    rows = np.arange(count)
    for index in range(MAX_OBJECTS):
        # The first try that overlaps no earlier object; the last one where all do.
        distance = radius[:, index] * (_OBJECT_REACH - reach[:, index])[:, None]
        x, z = distance * np.cos(angle[:, index]), distance * np.sin(angle[:, index])
        gap = np.hypot(
            x[:, :, None] - center[:, None, :index, 0], z[:, :, None] - center[:, None, :index, 2]
        )
        free = gap > (reach[:, None, :index] + reach[:, index, None, None]) * 0.85
        free = (free | ~present[:, None, :index]).all(axis=2)
        choice = np.where(free.any(axis=1), free.argmax(axis=1), tries - 1)
        center[:, index, 0], center[:, index, 2] = x[rows, choice], z[rows, choice]
    return kind, center, half, yaw


def _textures(draws: Draws) -> Float[np.ndarray, "B M 16"]:
    surfaces = FIRST_OBJECT + MAX_OBJECTS
    raw = draws.many(surfaces * TEXTURE_PARAMS).reshape(draws.count, surfaces, TEXTURE_PARAMS)
    texture = raw.copy()
    texture[:, :, 0] = np.minimum(np.floor(raw[:, :, 0] * TEXTURE_KINDS), TEXTURE_KINDS - 1)
    first = 0.08 + 0.84 * raw[:, :, 1:4]
    second = 0.08 + 0.84 * raw[:, :, 4:7]
    # A pattern needs contrast: push the second colour away where it came out too near.
    near = np.abs(first - second).max(axis=2, keepdims=True) < 0.3
    texture[:, :, 1:4] = first
    texture[:, :, 4:7] = np.where(near, 1.0 - first, second)
    texture[:, :, 7:10] = 0.08 + 0.84 * raw[:, :, 7:10]
    saturation = 0.25 + 0.6 * raw[:, :, 12:13]
    for start in (1, 4, 7):
        colour = texture[:, :, start : start + 3]
        grey = colour.mean(axis=2, keepdims=True)
        texture[:, :, start : start + 3] = grey + saturation * (colour - grey)
    is_object = np.arange(surfaces)[None] >= FIRST_OBJECT
    texture[:, :, 10] = np.where(is_object, 1.5, 0.6) * 2.4 ** raw[:, :, 10]  # cells per unit
    turn = raw[:, :, 11] * np.pi
    texture[:, :, 11], texture[:, :, 12] = np.cos(turn), np.sin(turn)
    texture[:, :, 13:15] = raw[:, :, 13:15] * 10.0
    texture[:, :, 15] = np.floor(raw[:, :, 15] * 65536.0)
    return texture
