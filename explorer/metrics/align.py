"""The similarity that carries one point map onto another (Umeyama, PAMI 1991)."""

from __future__ import annotations

import numpy as np

from explorer._typing import Bool, Float
from explorer.errors import ComparisonError
from explorer.report import Alignment

QUANTILE = 0.75  # of the reference's confidence, as in the published evaluation


def similarity(source: Float[np.ndarray, "N 3"], target: Float[np.ndarray, "N 3"]) -> Alignment:
    """Least-squares similarity target ~ s R source + t, unweighted, with a proper rotation.

    When all source points coincide no scale or rotation is determined; the result is then the
    translation between the two means.

    Args:
        source: (N, 3) finite points, N >= 1.
        target: (N, 3) finite points, their counterparts.

    Raises:
        ComparisonError: there is no point, or one is not finite.

    >>> source = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    >>> found = similarity(source, 2 * source + [0, 0, 3])
    >>> round(found.scale, 6), found.translation.round(6).tolist()
    (2.0, [0.0, 0.0, 3.0])
    """
    if len(source) == 0:
        raise ComparisonError("no pixel is known to both sides, so nothing can be aligned")
    source, target = source.astype(np.float64), target.astype(np.float64)
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise ComparisonError("a point is not a finite number; this reconstruction is broken")
    extent = float(np.abs(source - source.mean(0)).max())
    if extent <= 1e-12 * max(1.0, float(np.abs(source).max())):
        return Alignment(1.0, np.eye(3), target.mean(0) - source.mean(0))
    # roma brings torch along, which takes a second to import and only this function needs.
    import roma
    import torch

    rotation, translation, scale = roma.rigid_points_registration(
        torch.from_numpy(source), torch.from_numpy(target), compute_scaling=True
    )
    return Alignment(float(scale), rotation.numpy(), translation.numpy())


def confident(
    confidence: Float[np.ndarray, "*N"], *, quantile: float = QUANTILE
) -> Bool[np.ndarray, "*N"]:
    """Pixels to align on: confidence at or above its quantile over all known pixels.

    Pixels with confidence 0 are unknown and never chosen. With constant confidence all known
    pixels are chosen.

    >>> confident(np.array([0.0, 1, 2, 3, 4, 5])).tolist()
    [False, False, False, False, True, True]
    """
    known = confidence > 0
    if not known.any():
        return known
    return np.asarray(known & (confidence >= np.quantile(confidence[known], quantile)))
