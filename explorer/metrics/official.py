"""The published evaluation of arXiv 2512.19949 as it computes its numbers, quirks included.

For comparison with the tables of the paper only. Where these differ from the geometric metrics:
the relative pose is inv(E_i) E_j although E is cam_from_world, translation directions have no sign,
the AUC comes from a histogram of 31 bins between 0 and 30 degrees, the alignment quantile and the
means run over all pixels, and the depth error is neither scaled nor divided by the confidences.
"""

from __future__ import annotations

import numpy as np

from explorer._typing import Float, Int
from explorer.metrics.align import QUANTILE, similarity
from explorer.metrics.pose import PairErrors, all_pairs, direction_angle, rotation_angle
from explorer.report import Alignment

THRESHOLD = 30
BINS = 31


def relative_poses(
    cam_from_world: Float[np.ndarray, "S 3 4"], pairs: Int[np.ndarray, "P 2"]
) -> Float[np.ndarray, "P 3 4"]:
    """inv(E_i) E_j for each pair (i, j); for pairs with an identity E_i the geometric pose too."""
    pose = cam_from_world.astype(np.float64)
    first, second = pose[pairs[:, 0]], pose[pairs[:, 1]]
    back = np.swapaxes(first[:, :, :3], 1, 2)
    moved = second[:, :, 3] - first[:, :, 3]
    return np.concatenate(
        [back @ second[:, :, :3], np.einsum("pij,pj->pi", back, moved)[:, :, None]], axis=2
    )


def unsigned_angle(
    a: Float[np.ndarray, "*P 3"], b: Float[np.ndarray, "*P 3"]
) -> Float[np.ndarray, "*P"]:
    """Angle in degrees between two lines, 0 to 90.

    >>> float(unsigned_angle(np.array([1.0, 0, 0]), np.array([-2.0, 0, 0])))
    0.0
    """
    angle = direction_angle(a, b)
    return np.asarray(np.minimum(angle, 180.0 - angle))


def pair_errors(
    predicted: Float[np.ndarray, "S 3 4"], reference: Float[np.ndarray, "S 3 4"]
) -> PairErrors:
    """Rotation and unsigned translation errors of all pairs, from cam_from_world (S, 3, 4)."""
    pairs = all_pairs(len(reference))
    found, true = relative_poses(predicted, pairs), relative_poses(reference, pairs)
    return PairErrors(
        pairs=pairs,
        rotation=rotation_angle(found[:, :, :3], true[:, :, :3]),
        translation=unsigned_angle(found[:, :, 3], true[:, :, 3]),
    )


def auc(errors: Float[np.ndarray, " P"], threshold: int) -> float:
    """Mean of the first `threshold` cumulative bins of the histogram of 31 bins over 0 to 30.

    Bins are 30/31 degrees wide, so AUC@5 averages recall at 0.97, 1.94, ..., 4.84 degrees.

    >>> auc(np.array([0.5, 4.0]), 5)
    0.6
    """
    counts, _ = np.histogram(errors, bins=BINS, range=(0.0, float(THRESHOLD)))
    return float(np.cumsum(counts / len(errors))[:threshold].mean())


def aligned_point_error(
    predicted: Float[np.ndarray, "S H W 3"],
    reference: Float[np.ndarray, "S H W 3"],
    confidence: Float[np.ndarray, "S H W"],
) -> tuple[float, Alignment]:
    """(sum c |s R p + t - q| / sum c, the alignment) over all pixels of one sample.

    Fitted where the confidence is at or above its 75th percentile over all pixels. The official
    code logs this mean distance under a name with "mse"; the paper's main tables print it times 10.
    """
    mask = confidence >= np.percentile(confidence, 100 * QUANTILE)
    alignment = similarity(predicted[mask], reference[mask])
    aligned = alignment.apply(predicted.astype(np.float64))
    distance = np.linalg.norm(aligned - reference, axis=-1)
    weights = confidence.astype(np.float64)
    return float((weights * distance).sum() / (weights.sum() + 1e-6)), alignment


def depth_error(
    predicted: Float[np.ndarray, "*N"],
    reference: Float[np.ndarray, "*N"],
    confidence: Float[np.ndarray, "*N"],
) -> float:
    """mean of c |d - g|: no alignment, not divided by the confidences.

    >>> depth_error(np.array([1.0, 2.0]), np.array([1.0, 4.0]), np.array([1.0, 3.0]))
    3.0
    """
    difference = np.abs(predicted.astype(np.float64) - reference.astype(np.float64))
    return float((confidence.astype(np.float64) * difference).mean())


def encode_poses(
    cam_from_world: Float[np.ndarray, "S 3 4"],
    intrinsics: Float[np.ndarray, "S 3 3"],
    size: tuple[int, int],
) -> Float[np.ndarray, "S 9"]:
    """(S, 9) translation, quaternion xyzw with w >= 0, vertical and horizontal field of view.

    Args:
        cam_from_world: (S, 3, 4).
        intrinsics: (S, 3, 3) in pixels of an image of `size`; the principal point is not encoded.
        size: (height, width).
    """
    view = [
        2 * np.arctan(size[axis] / 2 / intrinsics[:, 1 - axis, 1 - axis].astype(np.float64))
        for axis in (0, 1)
    ]
    quaternion = _quaternion(cam_from_world[:, :, :3].astype(np.float64))
    return np.concatenate(
        [cam_from_world[:, :, 3].astype(np.float64), quaternion, np.stack(view, axis=-1)], axis=-1
    )


def decode_poses(
    encoding: Float[np.ndarray, "S 9"], size: tuple[int, int]
) -> tuple[Float[np.ndarray, "S 3 4"], Float[np.ndarray, "S 3 3"]]:
    """(cam_from_world, intrinsics) of encodings; quaternions of any length, centred cameras."""
    code = encoding.astype(np.float64)
    x, y, z, w = np.moveaxis(code[:, 3:7] / np.linalg.norm(code[:, 3:7], axis=1)[:, None], 1, 0)
    rotation = np.stack(
        [
            *(1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
            *(2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
            *(2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
        ],
        axis=-1,
    ).reshape(-1, 3, 3)
    intrinsics = np.zeros((len(code), 3, 3))
    for axis in (0, 1):
        intrinsics[:, 1 - axis, 1 - axis] = size[axis] / 2 / np.tan(code[:, 7 + axis] / 2)
        intrinsics[:, 1 - axis, 2] = size[axis] / 2
    intrinsics[:, 2, 2] = 1.0
    return np.concatenate([rotation, code[:, :3, None]], axis=2), intrinsics


def _quaternion(rotation: Float[np.ndarray, "S 3 3"]) -> Float[np.ndarray, "S 4"]:
    """xyzw of rotation matrices: the eigenvector of Bar-Itzhack's matrix, stable at all angles."""
    m = rotation
    off = np.stack(
        [m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]], axis=-1
    )
    trace = np.trace(m, axis1=1, axis2=2)
    k = np.zeros((len(m), 4, 4))
    k[:, :3, :3] = m + np.swapaxes(m, 1, 2) - trace[:, None, None] * np.eye(3)
    k[:, :3, 3] = k[:, 3, :3] = off
    k[:, 3, 3] = trace
    quaternion = np.linalg.eigh(k)[1][:, :, -1]
    return np.where(quaternion[:, 3:] < 0, -quaternion, quaternion)
