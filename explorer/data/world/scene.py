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
from explorer.data.world.motion import poses_over_time
from explorer.data.world.objects import OBJECT_REACH, sample_objects
from explorer.data.world.spec import WorldSpec
from explorer.data.world.splits import spec_of_seeds
from explorer.data.world.textures import sample_textures


@dataclass(frozen=True)
class Scenes:
    """B scenes as arrays.

    Attributes:
        room: (B,) whether there are walls and a ceiling.
        room_min, room_max: (B, 3) corners of the room; the floor is at y = 0 = room_max[1].
        kind: (B, N) 0 none, or a primitive of `spec.py`: a unit object in [-1, 1].
        half: (B, N, 3) half extents at rest, in the object's own frame.
        axes: (B, T, N, 3, 3) world-from-unit matrices, whose columns are the object's half axes in
            the world: rotation, half extents, and deformation.
        center: (B, T, N, 3) centres in the world.
        motion: (B, N) what the object does, see `motion.py`; 0 is nothing.
        texture: (B, 7 + N, 17) parameters of each surface's texture, see `textures.py`.
        light: (B, 3) position of the light; ambient: (B,) share of light without direction.
        sky: (B, 2, 3) colours at the horizon and above.
        cam_from_world: (B, T, 3, 4); focal: (B,) focal length in image widths.
        seeds: (B,).
    """

    room: Bool[np.ndarray, " B"]
    room_min: Float[np.ndarray, "B 3"]
    room_max: Float[np.ndarray, "B 3"]
    kind: Int[np.ndarray, "B N"]
    half: Float[np.ndarray, "B N 3"]
    axes: Float[np.ndarray, "B T N 3 3"]
    center: Float[np.ndarray, "B T N 3"]
    motion: Int[np.ndarray, "B N"]
    texture: Float[np.ndarray, "B M 17"]
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
        spec: what the scenes may contain, default what the seeds' split says.

    Raises:
        ValueError: without `spec`, the seeds are from splits that differ in what they contain.
    """
    spec = spec or spec_of_seeds(seeds)
    draws = Draws(seeds)
    count = len(seeds)
    room = draws.one() < spec.rooms
    room_max = np.stack([draws.span(2.9, 4.6), np.zeros(count), draws.span(2.9, 4.6)], axis=1)
    room_min = -room_max.copy()
    room_min[:, 1] = -draws.span(2.2, 3.4)
    objects = sample_objects(draws, spec)
    axes, center = poses_over_time(
        objects.motions, objects.half, objects.turn, objects.center, objects.rise, spec.frames
    )
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
    haze = 0.55 + 0.4 * draws.many(3)
    sky_low = 0.5 * (haze + haze.mean(axis=1, keepdims=True))
    sky_high = np.stack([draws.span(0.2, 0.6), draws.span(0.35, 0.7), draws.span(0.6, 1.0)], axis=1)
    texture = sample_textures(draws, spec.textures)
    ambient = draws.span(0.42, 0.6)
    bound = np.where(objects.kind[:, None] > 0, _bounding_radius(axes), -1.0)
    cameras = camera_paths(
        draws, spec.frames, room, room_min, room_max, center, bound, OBJECT_REACH, shake=spec.shake
    )
    shape = (count, spec.frames, *axes.shape[2:])
    return Scenes(
        room=room,
        room_min=room_min.astype(np.float32),
        room_max=room_max.astype(np.float32),
        kind=objects.kind,
        half=objects.half.astype(np.float32),
        axes=np.broadcast_to(axes.astype(np.float32), shape).copy(),
        center=np.broadcast_to(center.astype(np.float32), shape[:-1]).copy(),
        motion=objects.motions.style,
        texture=texture.astype(np.float32),
        light=np.where(room[:, None], inside, sun).astype(np.float32),
        ambient=ambient.astype(np.float32),
        sky=np.stack([sky_low, sky_high], axis=1).astype(np.float32),
        cam_from_world=cameras.astype(np.float32),
        focal=(0.5 / np.tan(fov / 2)).astype(np.float32),
        seeds=np.asarray(seeds, dtype=np.int64),
    )


def _bounding_radius(axes: Float[np.ndarray, "B T N 3 3"]) -> Float[np.ndarray, "B T N"]:
    """Distance of the farthest corner of each unit cube's image from its centre."""
    corners = np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]]).T
    return np.asarray(np.sqrt(((axes @ corners) ** 2).sum(axis=-2)).max(axis=-1))
