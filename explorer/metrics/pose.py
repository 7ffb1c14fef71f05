"""Relative pose errors and the area under their recall curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer._typing import Float, Int

MIN_BASELINE = 1e-3  # of the unit length: under a pixel of parallax, so no direction to be right on


@dataclass(frozen=True)
class PairErrors:
    """Errors of all pairs i < j, in degrees.

    Attributes:
        pairs: (P, 2) positions i, j in the order (0, 1), (0, 2), ...
        rotation: (P,) geodesic angle between the relative rotations, 0 to 180.
        translation: (P,) angle between the directions of the relative translations, 0 to 180;
            NaN where the reference does not move.
    """

    pairs: Int[np.ndarray, "P 2"]
    rotation: Float[np.ndarray, " P"]
    translation: Float[np.ndarray, " P"]

    @property
    def worst(self) -> Float[np.ndarray, " P"]:
        """(P,) the larger of the two angles; the rotation alone where there is no translation."""
        return np.asarray(np.fmax(self.rotation, self.translation))


def rotation_angle(
    a: Float[np.ndarray, "*P 3 3"], b: Float[np.ndarray, "*P 3 3"]
) -> Float[np.ndarray, "*P"]:
    """Geodesic angle in degrees between rotations, exact for small angles too.

    >>> quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    >>> float(rotation_angle(np.eye(3), quarter).round(9))
    90.0
    """
    between = np.swapaxes(a, -1, -2).astype(np.float64) @ b.astype(np.float64)
    axis = np.stack(
        [
            between[..., 2, 1] - between[..., 1, 2],
            between[..., 0, 2] - between[..., 2, 0],
            between[..., 1, 0] - between[..., 0, 1],
        ],
        axis=-1,
    )
    # Both arguments are twice the sine and cosine; arccos alone would lose angles under 1e-6.
    trace = np.trace(between, axis1=-2, axis2=-1)
    return np.asarray(np.degrees(np.arctan2(np.linalg.norm(axis, axis=-1), trace - 1.0)))


def direction_angle(
    a: Float[np.ndarray, "*P 3"], b: Float[np.ndarray, "*P 3"]
) -> Float[np.ndarray, "*P"]:
    """Angle in degrees between vectors, 0 to 180; 180 where one of them has no direction.

    >>> ahead = np.array([[1.0, 0, 0], [0, 0, 0]])
    >>> direction_angle(ahead, np.array([[0, 2.0, 0], [1, 0, 0]])).tolist()
    [90.0, 180.0]
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    sine = np.linalg.norm(np.cross(a, b), axis=-1)
    angle = np.degrees(np.arctan2(sine, (a * b).sum(-1)))
    return np.where(lengths > 1e-18, angle, 180.0)


def all_pairs(count: int) -> Int[np.ndarray, "P 2"]:
    """(P, 2) positions i < j in the order (0, 1), (0, 2), ..., (1, 2), ..."""
    return np.stack(np.triu_indices(count, 1), axis=-1).astype(np.int64)


def relative_poses(
    cam_from_world: Float[np.ndarray, "S 3 4"], pairs: Int[np.ndarray, "P 2"]
) -> Float[np.ndarray, "P 3 4"]:
    """camera j from camera i: E_j inv(E_i), for each pair (i, j)."""
    pose = cam_from_world.astype(np.float64)
    first, second = pose[pairs[:, 0]], pose[pairs[:, 1]]
    rotation = second[:, :, :3] @ np.swapaxes(first[:, :, :3], 1, 2)
    translation = second[:, :, 3] - np.einsum("pij,pj->pi", rotation, first[:, :, 3])
    return np.concatenate([rotation, translation[:, :, None]], axis=2)


def pair_errors(
    predicted: Float[np.ndarray, "S 3 4"],
    reference: Float[np.ndarray, "S 3 4"],
    *,
    min_baseline: float = MIN_BASELINE,
) -> PairErrors:
    """Geometric pose errors of all pairs of cameras.

    Directions are compared with their sign: a camera that moves backwards is 180 degrees off.
    Where the reference's baseline is under `min_baseline` (a camera that only turns) a direction
    means nothing and the rotation alone counts. Where the reference moves but the prediction stands
    still the direction is missed by 180 degrees.

    Args:
        predicted: (S, 3, 4) cam_from_world, in any frame and scale.
        reference: (S, 3, 4) cam_from_world.
        min_baseline: in the reference's units.
    """
    pairs = all_pairs(len(reference))
    found, true = relative_poses(predicted, pairs), relative_poses(reference, pairs)
    moving = np.linalg.norm(true[:, :, 3], axis=-1) >= min_baseline
    translation = direction_angle(found[:, :, 3], true[:, :, 3])
    return PairErrors(
        pairs=pairs,
        rotation=rotation_angle(found[:, :, :3], true[:, :, :3]),
        translation=np.where(moving, translation, np.nan),
    )


def auc(errors: Float[np.ndarray, " P"], threshold: float | int) -> float:
    """Exact area under the recall curve between 0 and `threshold` degrees, in [0, 1].

    Recall at angle x is the share of pairs with error <= x; its integral over [0, k], divided by k,
    is the mean of max(0, 1 - error / k), so no bins are needed. NaN when there is no pair.

    >>> auc(np.array([0.0, 2.5, 10.0]), 5)
    0.5
    """
    if len(errors) == 0:
        return float("nan")
    return float(np.maximum(0.0, 1.0 - errors / threshold).mean())
