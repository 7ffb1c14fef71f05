"""Spearman's rank correlation."""

from __future__ import annotations

import numpy as np

from explorer._typing import Float


def spearman(a: Float[np.ndarray, "*R N"], b: Float[np.ndarray, "*R N"]) -> Float[np.ndarray, "*R"]:
    """Correlations, -1 to 1, of the ranks along the last axis; equal values share their mean rank.

    Not a number where all values are equal.

    >>> spearman(np.array([1.0, 2.0, 4.0]), np.array([0.1, 0.2, 9.0])).round(6).tolist()
    1.0
    """
    x, y = _ranks(np.asarray(a)), _ranks(np.asarray(b))
    scale = np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1))
    with np.errstate(invalid="ignore"):
        return np.asarray((x * y).sum(axis=-1) / scale)


def _ranks(values: Float[np.ndarray, "*R N"]) -> Float[np.ndarray, "*R N"]:
    """Ranks less their mean: half the number of smaller values less half that of larger ones."""
    difference = np.sign(values[..., :, None] - values[..., None, :])
    return np.asarray(0.5 * difference.sum(axis=-1))
