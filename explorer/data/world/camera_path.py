"""Camera motion: orbits, dollies and pans, each with real parallax, some held in a hand."""

from __future__ import annotations

import numpy as np

from explorer._typing import Bool, Float
from explorer.data.world.draws import Draws
from explorer.data.world.handheld import LARGEST_SHIFT, sample_shake

_CANDIDATES = 5
_CLEARANCE = 0.3  # to walls and to objects' bounding spheres


def look_at(
    position: Float[np.ndarray, "... 3"], forward: Float[np.ndarray, "... 3"]
) -> Float[np.ndarray, "... 3 4"]:
    """cam_from_world (..., 3, 4) of upright cameras at `position` that look along `forward`."""
    z = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    down = np.broadcast_to(np.array([0.0, 1.0, 0.0]), z.shape)
    x = np.cross(down, z)
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    rotation = np.stack([x, np.cross(z, x), z], axis=-2)
    translation = -np.einsum("...ij,...j->...i", rotation, position)
    return np.concatenate([rotation, translation[..., None]], axis=-1)


def camera_paths(
    draws: Draws,
    frames: int,
    room: Bool[np.ndarray, " B"],
    room_min: Float[np.ndarray, "B 3"],
    room_max: Float[np.ndarray, "B 3"],
    center: Float[np.ndarray, "B K N 3"],
    bound: Float[np.ndarray, "B K N"],
    object_reach: float,
    *,
    shake: float,
) -> Float[np.ndarray, "B T 3 4"]:
    """(B, T, 3, 4) cam_from_world of smooth paths that keep clear of walls and objects.

    Several candidates are drawn for each scene and the first free one is taken; the last candidate
    is an orbit around all objects, which is always free.

    Args:
        draws: of B scenes.
        frames: T.
        room: (B,) whether there are walls.
        room_min: (B, 3) corner of the room.
        room_max: (B, 3) corner of the room.
        center: (B, K, N, 3) of the objects; K is T, or 1 where nothing moves.
        bound: (B, K, N) radii of spheres around them, negative where there is none.
        object_reach: radius of the ground on which objects stand.
        shake: fraction of cameras held in a hand.
    """
    turn, shift = sample_shake(draws, frames, shake)
    margin = np.where(room, np.minimum(room_max[:, 0], room_max[:, 2]) - _CLEARANCE, 6.0)
    ceiling = np.where(room, room_min[:, 1] + _CLEARANCE, -4.0)
    rows = np.arange(draws.count)
    positions, directions, free = [], [], []
    for index in range(_CANDIDATES):
        last = index == _CANDIDATES - 1
        position, direction = _candidate(
            draws, frames, margin - LARGEST_SHIFT, object_reach + LARGEST_SHIFT, orbit_only=last
        )
        position = position + shift
        position[:, :, 1] = np.clip(position[:, :, 1], ceiling[:, None], -_CLEARANCE)
        away = position[:, :, None] - center
        clear = (np.einsum("btni,btni->btn", away, away) > (bound + _CLEARANCE) ** 2) | (bound < 0)
        inside = (np.abs(position[:, :, [0, 2]]) < (margin + 1e-6)[:, None, None]).all(axis=(1, 2))
        positions.append(position)
        directions.append(direction)
        free.append(clear.all(axis=(1, 2)) & inside)
    choice = np.where(np.any(free, axis=0), np.argmax(free, axis=0), _CANDIDATES - 1)
    steady = look_at(
        np.stack(positions, axis=1)[rows, choice], np.stack(directions, axis=1)[rows, choice]
    )
    return turn @ steady


def _candidate(
    draws: Draws,
    frames: int,
    margin: Float[np.ndarray, " B"],
    object_reach: float,
    *,
    orbit_only: bool,
) -> tuple[Float[np.ndarray, "B T 3"], Float[np.ndarray, "B T 3"]]:
    """Positions and viewing directions of one candidate path for each scene."""
    time = np.linspace(0.0, 1.0, frames)[None]
    style = draws.one()
    angle, sweep = draws.span(0, 2 * np.pi), draws.span(0.2, 0.75)
    sign = np.where(draws.one() < 0.5, -1.0, 1.0)
    nearest = object_reach + _CLEARANCE
    radius = nearest + draws.one() * np.maximum(np.minimum(margin, 4.2) - nearest, 0.0)
    height, rise = draws.span(0.5, 2.0), draws.span(-0.3, 0.3)
    target = np.stack([draws.span(-0.5, 0.5), -draws.span(0.1, 0.8), draws.span(-0.5, 0.5)], axis=1)
    travel, across = draws.span(0.35, 1.1), draws.span(-1.0, 1.0)
    turn = draws.span(0.1, 0.4) * sign

    orbit = angle[:, None] + (sign * sweep)[:, None] * time
    y = -np.maximum(height[:, None] + rise[:, None] * time, 0.3)
    around = np.stack([radius[:, None] * np.cos(orbit), y, radius[:, None] * np.sin(orbit)], axis=2)
    orbit_direction = target[:, None] - around
    if orbit_only:
        return around, orbit_direction

    start = around[:, :1]
    ahead = target[:, None] - start
    ahead = ahead / np.linalg.norm(ahead, axis=2, keepdims=True)
    side = np.cross(np.broadcast_to([0.0, 1.0, 0.0], ahead.shape), ahead)
    side = side / np.linalg.norm(side, axis=2, keepdims=True)
    step = time[:, :, None] * travel[:, None, None] * sign[:, None, None]
    dolly = start + step * (0.7 * ahead + across[:, None, None] * side)
    dolly[:, :, 1] = np.minimum(dolly[:, :, 1], -0.3)
    dolly_direction = np.broadcast_to(ahead, dolly.shape)

    pan = start + step * 0.7 * side
    swing = (time - 0.5) * turn[:, None]
    cosine, sine = np.cos(swing), np.sin(swing)
    pan_direction = np.stack(
        [
            cosine * ahead[:, :, 0] + sine * ahead[:, :, 2],
            np.broadcast_to(ahead[:, :, 1], swing.shape),
            -sine * ahead[:, :, 0] + cosine * ahead[:, :, 2],
        ],
        axis=2,
    )
    pick = np.where(style < 0.5, 0, np.where(style < 0.75, 1, 2))[:, None, None]
    position = np.where(pick == 0, around, np.where(pick == 1, dolly, pan))
    direction = np.where(
        pick == 0, orbit_direction, np.where(pick == 1, dolly_direction, pan_direction)
    )
    return position, direction
