"""Point error: mean distance after the best similarity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer._typing import Float
from explorer.metrics.align import QUANTILE, confident, similarity
from explorer.report import Alignment


@dataclass(frozen=True)
class PointError:
    """Attributes:
    error: confidence-weighted mean distance, in the reference's units.
    map: (S, H, W) distances, NaN where nothing is known.
    alignment: the similarity that was applied to the prediction.
    """

    error: float
    map: Float[np.ndarray, "S H W"]
    alignment: Alignment


def point_error(
    predicted: Float[np.ndarray, "S H W 3"],
    reference: Float[np.ndarray, "S H W 3"],
    confidence: Float[np.ndarray, "S H W"],
    *,
    quantile: float = QUANTILE,
) -> PointError:
    """sum c |s R p + t - q| / sum c over all known pixels of all frames.

    One similarity for the whole clip is fitted, unweighted, on the most confident quarter of the
    pixels (arXiv 2512.19949, point error); with constant confidence on all known pixels. The
    result does not change when the prediction is moved, turned or scaled as a whole.

    Args:
        predicted: (S, H, W, 3) world points p.
        reference: (S, H, W, 3) world points q, in any other frame and scale.
        confidence: (S, H, W) c >= 0; 0 marks pixels that do not count.
        quantile: of the confidence, from which on pixels are fitted.

    Raises:
        ComparisonError: no pixel counts, or a point that counts is not finite.

    >>> points = np.random.default_rng(0).normal(size=(1, 4, 5, 3))
    >>> round(point_error(3 * points + 1, points, np.ones((1, 4, 5))).error, 9)
    0.0
    """
    chosen = confident(confidence, quantile=quantile)
    alignment = similarity(predicted[chosen], reference[chosen])
    known = confidence > 0
    aligned = alignment.apply(predicted[known].astype(np.float64))
    distance = np.linalg.norm(aligned - reference[known].astype(np.float64), axis=-1)
    error_map = np.full(confidence.shape, np.nan)
    error_map[known] = distance
    weights = confidence[known].astype(np.float64)
    return PointError(float(weights @ distance / weights.sum()), error_map, alignment)
