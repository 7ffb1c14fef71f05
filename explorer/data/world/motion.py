"""What objects of dynamic scenes do: slide, roll, spin, bounce; squash and lean.

Rigid or not, a motion is an affine map of the object's frame for each frame of the clip, so rays
meet deformed objects exactly and every surface point can be followed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from explorer._typing import Bool, Float, Int
from explorer.data.world.draws import Draws
from explorer.data.world.spec import MAX_OBJECTS, WorldSpec

STILL, SLIDE, SPIN, BOUNCE, SQUASH, LEAN = range(6)
RIGID, DEFORMING = (SLIDE, SPIN, BOUNCE), (SQUASH, LEAN)
_SHARES = (0.34, 0.12, 0.12, 0.22, 0.2)  # of the motions above without the first
_STRONGEST_SQUASH, _STRONGEST_LEAN = 0.4, 0.5


@dataclass(frozen=True)
class Motions:
    """Motions of N objects in B scenes.

    Attributes:
        style: (B, N) one of the constants above.
        is_ball: (B, N) balls roll where others slide.
        amount: (B, N) travel, height or strength, in [0, 1) of what the style allows.
        turn: (B, N) radians about y over the clip, of sliding and spinning objects.
        angle: (B, N) direction on the ground.
        cycles: (B, N) repetitions in the clip; phase: (B, N) radians.
    """

    style: Int[np.ndarray, "B N"]
    is_ball: Bool[np.ndarray, "B N"]
    amount: Float[np.ndarray, "B N"]
    turn: Float[np.ndarray, "B N"]
    angle: Float[np.ndarray, "B N"]
    cycles: Float[np.ndarray, "B N"]
    phase: Float[np.ndarray, "B N"]

    @property
    def moves(self) -> Bool[np.ndarray, "B N"]:
        """Which objects are not still."""
        return self.style != STILL

    @property
    def travel(self) -> Float[np.ndarray, "B N"]:
        """Length of a slide in units."""
        return np.where(self.style == SLIDE, 0.3 + 0.6 * self.amount, 0.0)

    @property
    def spread(self) -> Float[np.ndarray, "B N"]:
        """How much wider than at rest objects become."""
        return np.where(self.style == SQUASH, (1 - _STRONGEST_SQUASH) ** -0.5, 1.0)

    def extent(self, rise: Float[np.ndarray, "B N"]) -> Float[np.ndarray, "B N"]:
        """How far objects go beyond their place at rest.

        Args:
            rise: (B, N) half the objects' heights.
        """
        lean = np.where(self.style == LEAN, 2 * _STRONGEST_LEAN * rise, 0.0)
        return np.asarray(0.5 * self.travel + lean)

    def grounded(
        self, stacked: Bool[np.ndarray, "B N"], present: Bool[np.ndarray, "B N"]
    ) -> Motions:
        """The same, but what stands on another object spins where it would slide off."""
        style = np.where(stacked & (self.style == SLIDE), SPIN, self.style)
        return replace(self, style=np.where(present, style, STILL))


def sample_motions(draws: Draws, spec: WorldSpec, *, is_ball: Bool[np.ndarray, "B N"]) -> Motions:
    """Motions of a batch of scenes; the first object of a dynamic scene always moves."""
    shape = (draws.count, MAX_OBJECTS)
    if spec.moving == 0:
        nothing = np.zeros(shape)
        return Motions(nothing.astype(np.int64), is_ball, *[nothing] * 5)
    moves = draws.many(MAX_OBJECTS) < spec.moving
    moves[:, 0] = True
    style = 1 + np.searchsorted(np.cumsum(_SHARES)[:-1], draws.many(MAX_OBJECTS), side="right")
    # A ball that spins in place would hardly be seen to move.
    style = np.where(is_ball & (style == SPIN), SLIDE, style)
    sign = np.where(draws.many(MAX_OBJECTS) < 0.5, -1.0, 1.0)
    return Motions(
        style=np.where(moves, style, STILL),
        is_ball=is_ball,
        amount=draws.many(MAX_OBJECTS),
        turn=sign * (0.6 + 2.0 * draws.many(MAX_OBJECTS)),
        angle=2 * np.pi * draws.many(MAX_OBJECTS),
        cycles=0.5 + draws.many(MAX_OBJECTS),
        phase=2 * np.pi * draws.many(MAX_OBJECTS),
    )


def poses_over_time(
    motions: Motions,
    half: Float[np.ndarray, "B N 3"],
    turn: Float[np.ndarray, "B N 3 3"],
    center: Float[np.ndarray, "B N 3"],
    rise: Float[np.ndarray, "B N"],
    frames: int,
) -> tuple[Float[np.ndarray, "B K N 3 3"], Float[np.ndarray, "B K N 3"]]:
    """World-from-unit matrices and centres in every frame; K is T, or 1 where nothing moves.

    Columns of a matrix are the object's half axes in the world; the unit object spans [-1, 1].

    Args:
        motions: of the objects.
        half: (B, N, 3) half extents at rest.
        turn: (B, N, 3, 3) world-from-object rotation at rest.
        center: (B, N, 3) at rest.
        rise: (B, N) half the heights at rest.
        frames: T.
    """
    axes = turn * half[:, :, None, :]
    if not motions.moves.any():
        return axes[:, None], center[:, None]
    style = motions.style[:, None]
    time = np.linspace(0.0, 1.0, frames)[None, :, None]
    direction = np.stack([np.cos(motions.angle), np.sin(motions.angle)], axis=2)[:, None]
    swing = np.sin(2 * np.pi * motions.cycles[:, None] * time + motions.phase[:, None])
    slides, amount = style == SLIDE, motions.amount[:, None]

    # Every second slide is a swing to and fro, the others go straight.
    progress = np.where(motions.phase[:, None] < np.pi, time - 0.5, 0.5 * swing)
    along = motions.travel[:, None] * progress
    turning = slides & ~motions.is_ball[:, None] | (style == SPIN)
    yaw = np.where(turning, motions.turn[:, None] * (time - 0.5), 0.0)
    rolls = slides & motions.is_ball[:, None]
    roll = np.where(rolls, along / half[:, None, :, 1], 0.0)
    moved = _roll(roll, motions.angle[:, None]) @ _about_y(yaw) @ axes[:, None]

    where = np.repeat(center[:, None], frames, axis=1)
    where[..., [0, 2]] += along[..., None] * direction
    hop = 0.15 + 0.4 * amount
    where[..., 1] -= np.where(style == BOUNCE, hop * np.abs(swing), 0.0)

    # Squashing keeps the volume, leaning the height; both keep the base where it is.
    tall = np.where(style == SQUASH, 1 + (0.15 + 0.25 * amount) * swing, 1.0)
    lean = np.where(style == LEAN, (0.2 + 0.3 * amount) * swing, 0.0)
    deform = np.zeros((*tall.shape, 3, 3))
    deform[..., 0, 0] = deform[..., 2, 2] = tall**-0.5
    deform[..., 1, 1] = tall
    deform[..., [0, 2], 1] = -lean[..., None] * direction
    base = rise[:, None]
    where[..., 1] += base * (1 - tall)
    where[..., [0, 2]] += (lean * base)[..., None] * direction
    return deform @ moved, where


def _about_y(angle: Float[np.ndarray, "B T N"]) -> Float[np.ndarray, "B T N 3 3"]:
    matrix = np.zeros((*angle.shape, 3, 3))
    matrix[..., 0, 0] = matrix[..., 2, 2] = np.cos(angle)
    matrix[..., 0, 2], matrix[..., 2, 0] = np.sin(angle), -np.sin(angle)
    matrix[..., 1, 1] = 1.0
    return matrix


def _roll(
    roll: Float[np.ndarray, "B T N"], angle: Float[np.ndarray, "B 1 N"]
) -> Float[np.ndarray, "B T N 3 3"]:
    """Rotations of balls that roll towards (cos angle, 0, sin angle) on the ground."""
    cosine, sine = np.cos(roll), np.sin(roll)
    axis = np.stack([-np.sin(angle), np.zeros_like(angle), np.cos(angle)], axis=-1)
    cross = np.zeros((*angle.shape, 3, 3))
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        cross[..., i, j], cross[..., j, i] = -axis[..., k], axis[..., k]
    outer = axis[..., :, None] * axis[..., None, :]
    return np.asarray(
        cosine[..., None, None] * np.eye(3)
        + sine[..., None, None] * cross
        + (1 - cosine)[..., None, None] * outer
    )
