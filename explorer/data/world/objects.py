"""Objects of a scene: shapes, sizes, and places on the ground, above it or on each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer._typing import Bool, Float, Int
from explorer.data.world.draws import Draws
from explorer.data.world.motion import Motions, sample_motions
from explorer.data.world.spec import MAX_OBJECTS, SHAPES, WorldSpec

OBJECT_REACH = 1.9  # objects stay inside this distance from the centre; cameras mostly outside
_TRIES = 8
_TALLEST = 1.9  # stacks end here
_IS_FLAT = np.array([name in ("box", "cylinder") for name in SHAPES])
_LEAST_SHRINK = 0.45  # nothing is made smaller than this to stand on something


@dataclass(frozen=True)
class Objects:
    """Objects of B scenes at rest.

    Attributes:
        kind: (B, N) primitive, 0 for none.
        half: (B, N, 3) half extents in the object's own frame.
        turn: (B, N, 3, 3) world-from-object rotation.
        center: (B, N, 3) in the world; rise: (B, N) half the height as it lies.
        motions: what they do over time.
    """

    kind: Int[np.ndarray, "B N"]
    half: Float[np.ndarray, "B N 3"]
    turn: Float[np.ndarray, "B N 3 3"]
    center: Float[np.ndarray, "B N 3"]
    rise: Float[np.ndarray, "B N"]
    motions: Motions


def sample_objects(draws: Draws, spec: WorldSpec) -> Objects:
    """The objects of a batch of scenes."""
    crowded = draws.one() < spec.clutter
    low = np.where(crowded, spec.crowd[0], spec.objects[0])
    high = np.where(crowded, spec.crowd[1], spec.objects[1])
    wanted = low + np.floor(draws.one() * (high - low + 1)).astype(np.int64)
    present = np.arange(MAX_OBJECTS)[None] < wanted[:, None]

    names = list(spec.shapes)
    edges = np.cumsum([spec.shapes[name] for name in names])
    pick = np.searchsorted(edges / edges[-1], draws.many(MAX_OBJECTS), side="right")
    pick = np.minimum(pick, len(names) - 1)
    shape = np.array([list(SHAPES).index(name) for name in names])[pick]
    half = _half_extents(draws, shape) * np.where(crowded, 0.8, 1.0)[:, None, None]
    lies = shape == list(SHAPES).index("pipe")
    turn = _turns(draws.many(MAX_OBJECTS) * np.pi, lies)
    extents = np.abs(turn) * half[:, :, None, :]
    rise = extents[:, :, 1].sum(axis=2)
    reach = np.hypot(half[:, :, 0], np.where(lies, half[:, :, 1], half[:, :, 2]))
    motions = sample_motions(draws, spec, is_ball=shape == list(SHAPES).index("ball"))

    lift = np.where(draws.many(MAX_OBJECTS) < 0.1, draws.many(MAX_OBJECTS), 0.0)
    stacks = draws.many(MAX_OBJECTS) < np.where(crowded, 0.45, 0.12)[:, None]
    flat = _IS_FLAT[shape] & ~motions.moves & present
    inscribed = np.minimum(half[:, :, 0], half[:, :, 2])
    center, scale, stacked = _places(
        draws, present, reach * motions.spread + motions.extent(rise), reach, rise, lift,
        stacks, flat, inscribed,
    )  # fmt: skip
    half, rise = half * scale[:, :, None], rise * scale
    kind = np.where(present, np.array(list(SHAPES.values()))[shape], 0)
    return Objects(kind, half, turn, center, rise, motions.grounded(stacked, present))


def _half_extents(draws: Draws, shape: Int[np.ndarray, "B N"]) -> Float[np.ndarray, "B N 3"]:
    raw = draws.many(MAX_OBJECTS * 3).reshape(draws.count, MAX_OBJECTS, 3)
    size = 0.16 + 0.42 * raw**1.5
    a, b, c = size[:, :, 0], size[:, :, 1], size[:, :, 2]
    ball = np.minimum(a, 0.5)
    thin = np.minimum(0.8 * a, 0.4)
    wide = np.minimum(0.1 + 0.9 * a, 0.5)
    choices = {
        "box": (a, 1.3 * b, c),
        "ball": (ball, ball, ball),
        "cylinder": (ball, 1.3 * b, ball),
        "pipe": (thin, 0.15 + 1.1 * b, thin),
        "cone": (wide, 0.15 + 1.2 * b, wide),
        "ellipsoid": (0.05 + a, 0.75 * b + 0.05, 0.8 * c),
    }
    half = np.zeros_like(size)
    for number, name in enumerate(SHAPES):
        half = np.where((shape == number)[:, :, None], np.stack(choices[name], axis=2), half)
    return half


def _turns(yaw: Float[np.ndarray, "B N"], lies: Bool[np.ndarray, "B N"]) -> np.ndarray:
    """World-from-object rotations: about y, after laying the own y axis along x for some."""
    cosine, sine, zero, one = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw), np.ones_like(yaw)
    upright = np.stack([cosine, zero, sine, zero, one, zero, -sine, zero, cosine], axis=-1)
    lying = np.stack([zero, cosine, sine, -one, zero, zero, zero, -sine, cosine], axis=-1)
    chosen = np.where(lies[:, :, None], lying, upright)
    return chosen.reshape(*yaw.shape, 3, 3)


def _places(
    draws: Draws,
    present: Bool[np.ndarray, "B N"],
    room: Float[np.ndarray, "B N"],
    reach: Float[np.ndarray, "B N"],
    rise: Float[np.ndarray, "B N"],
    lift: Float[np.ndarray, "B N"],
    stacks: Bool[np.ndarray, "B N"],
    flat: Bool[np.ndarray, "B N"],
    inscribed: Float[np.ndarray, "B N"],
) -> tuple[Float[np.ndarray, "B N 3"], Float[np.ndarray, "B N"], Bool[np.ndarray, "B N"]]:
    """(centres, scales, which stand on another); `room` is the radius that each one needs."""
    count, rows = draws.count, np.arange(draws.count)
    radius = np.sqrt(draws.many(MAX_OBJECTS * _TRIES)).reshape(count, MAX_OBJECTS, _TRIES)
    angle = 2 * np.pi * draws.many(MAX_OBJECTS * _TRIES).reshape(count, MAX_OBJECTS, _TRIES)
    shift, rank = draws.many(MAX_OBJECTS), draws.many(MAX_OBJECTS)
    center = np.zeros((count, MAX_OBJECTS, 3))
    scale = np.ones((count, MAX_OBJECTS))
    top = np.zeros((count, MAX_OBJECTS))
    free = flat.copy()  # flat tops with nothing on them
    stacked = np.zeros_like(present)
    for index in range(MAX_OBJECTS):
        # The first try that overlaps no earlier object; the last one where all do.
        away = np.maximum(OBJECT_REACH - room[:, index], 0.0)[:, None] * radius[:, index]
        x, z = away * np.cos(angle[:, index]), away * np.sin(angle[:, index])
        gap = np.hypot(
            x[:, :, None] - center[:, None, :index, 0], z[:, :, None] - center[:, None, :index, 2]
        )
        apart = gap > (room[:, None, :index] + room[:, index, None, None]) * 0.85
        apart = (apart | ~present[:, None, :index]).all(axis=2)
        choice = np.where(apart.any(axis=1), apart.argmax(axis=1), _TRIES - 1)
        center[:, index, 0], center[:, index, 2] = x[rows, choice], z[rows, choice]
        base = -lift[:, index]
        if index:
            # Or on top of an earlier one, smaller if it must be.
            fit = np.minimum(0.95 * inscribed[:, :index] / reach[:, index, None], 1.0)
            height = -top[:, :index] + 2 * rise[:, index, None] * fit
            able = free[:, :index] & (fit > _LEAST_SHRINK) & (height < _TALLEST)
            under = np.where(able, (rank[:, :index] + rank[:, index, None]) % 1.0, -1.0).argmax(1)
            on = stacks[:, index] & able.any(axis=1) & present[:, index]
            shrink = np.where(on, fit[rows, under], 1.0)
            slack = 0.8 * (inscribed[rows, under] - shrink * reach[:, index]) * shift[:, index]
            along = angle[:, index, 0]
            for axis, part in ((0, np.cos(along)), (2, np.sin(along))):
                there = center[rows, under, axis] + np.maximum(slack, 0.0) * part
                center[:, index, axis] = np.where(on, there, center[:, index, axis])
            base = np.where(on, top[rows, under], base)
            free[rows, under] &= ~on
            scale[:, index], stacked[:, index] = shrink, on
            inscribed[:, index] *= shrink
        center[:, index, 1] = base - rise[:, index] * scale[:, index]
        top[:, index] = base - 2 * rise[:, index] * scale[:, index]
    return center, scale, stacked
