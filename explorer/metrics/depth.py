"""Depth error: mean absolute difference after one scale for the whole clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer._typing import Bool, Float
from explorer.errors import ComparisonError


@dataclass(frozen=True)
class DepthError:
    """Attributes:
    error: mean absolute difference, in the reference's units.
    map: (S, H, W) absolute differences, NaN where nothing is known.
    scale: what the prediction was multiplied with.
    """

    error: float
    map: Float[np.ndarray, "S H W"]
    scale: float


def depth_error(
    predicted: Float[np.ndarray, "S H W"],
    reference: Float[np.ndarray, "S H W"],
    known: Bool[np.ndarray, "S H W"],
) -> DepthError:
    """mean |s d - g| over known pixels, s = median(g / d) over those of all frames together.

    One scale for the clip, not one a frame: a prediction whose scale drifts pays for it. Predicted
    depths that are not positive have no ratio and stay out of the median, but count in the mean.

    Args:
        predicted: (S, H, W) z-depth d.
        reference: (S, H, W) z-depth g > 0 wherever `known`.
        known: (S, H, W) pixels that count.

    Raises:
        ComparisonError: no pixel counts, none is positive, or one that counts is not finite.

    >>> reference = np.array([[[1.0, 2.0, 4.0]]])
    >>> found = depth_error(10 * reference, reference, reference > 0)
    >>> round(found.scale, 9), found.error
    (0.1, 0.0)
    """
    if not known.any():
        raise ComparisonError("no pixel is known to both sides, so no depth can be compared")
    d, g = predicted[known].astype(np.float64), reference[known].astype(np.float64)
    if not np.isfinite(d).all():
        raise ComparisonError("a predicted depth is not a finite number; this prediction is broken")
    positive = d > 0
    if not positive.any():
        raise ComparisonError("no predicted depth is positive, so there is no scale to compare at")
    scale = float(np.median(g[positive] / d[positive]))
    error_map = np.full(known.shape, np.nan)
    error_map[known] = np.abs(scale * d - g)
    return DepthError(float(error_map[known].mean()), error_map, scale)
