"""Everything that a linear fit needs of its data: counts, means and centred second moments.

They grow by batches and merge across machines, so that a fit over any number of clips needs memory
for one clip and a square of channels. Centred updates (Chan, Golub and LeVeque, 1983) keep what
sums of squares lose: the variance of channels whose mean is far larger than their spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer._typing import Float

FLAT = 1e-9
"""A channel whose spread is under this share of its size is constant but for rounding."""


class Moments:
    """Moments of pairs of inputs x and targets y, in float64.

    Attributes:
        count: number of pairs.
        mean_x, mean_y: (C,), (K,) means.
        xx: (C, C) sum of (x - mean_x)(x - mean_x)^T; xy: (C, K) the same with y.
        yy: (K,) sum of (y - mean_y)^2, of each target alone.
    """

    def __init__(self, inputs: int, targets: int) -> None:
        self.count = 0
        self.mean_x, self.mean_y = np.zeros(inputs), np.zeros(targets)
        self.xx, self.xy = np.zeros((inputs, inputs)), np.zeros((inputs, targets))
        self.yy = np.zeros(targets)

    def add(self, x: Float[np.ndarray, "N C"], y: Float[np.ndarray, "N K"]) -> None:
        """Count N more pairs; none is fine.

        Raises:
            ValueError: a number is not finite.
        """
        if not len(x):
            return
        x, y = x.astype(np.float64), y.astype(np.float64)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("a feature or target is not a finite number: nothing can be fitted")
        batch = Moments(x.shape[1], y.shape[1])
        batch.count, batch.mean_x, batch.mean_y = len(x), x.mean(axis=0), y.mean(axis=0)
        x, y = x - batch.mean_x, y - batch.mean_y
        batch.xx, batch.xy, batch.yy = x.T @ x, x.T @ y, (y**2).sum(axis=0)
        self.merge(batch)

    def merge(self, other: Moments) -> None:
        """Count all pairs of other moments too, as if they had been added here."""
        total = self.count + other.count
        if not other.count:
            return
        x, y = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        between = self.count * other.count / total
        self.xx = self.xx + other.xx + between * np.outer(x, x)
        self.xy = self.xy + other.xy + between * np.outer(x, y)
        self.yy = self.yy + other.yy + between * y**2
        self.mean_x = self.mean_x + x * (other.count / total)
        self.mean_y = self.mean_y + y * (other.count / total)
        self.count = total

    def squared_error(self, fit: LinearFit) -> Float[np.ndarray, " K"]:
        """(K,) sum over all pairs of (y - fit(x))^2, without the pairs."""
        slope = fit.weights / fit.scale[:, None]
        offset = self.mean_y - fit.bias - (self.mean_x - fit.mean) @ slope
        explained = 2 * (slope * self.xy).sum(axis=0) - (slope * (self.xx @ slope)).sum(axis=0)
        # Rounding may leave a perfect fit a little below zero.
        return np.maximum(self.yy - explained, 0.0) + self.count * offset**2


@dataclass(frozen=True)
class LinearFit:
    """y = bias + ((x - mean) / scale) weights.

    Attributes:
        mean, scale: (C,) of the training inputs; scale is infinite where a channel is constant, so
            that it counts for nothing.
        weights: (C, K) of the standardised channels.
        bias: (K,) the training targets' means.
    """

    mean: Float[np.ndarray, " C"]
    scale: Float[np.ndarray, " C"]
    weights: Float[np.ndarray, "C K"]
    bias: Float[np.ndarray, " K"]

    def __call__(self, x: Float[np.ndarray, "*N C"]) -> Float[np.ndarray, "*N K"]:
        """(..., K) float64 answers."""
        return (x.astype(np.float64) - self.mean) / self.scale @ self.weights + self.bias


class RidgePath:
    """The ridge fits of all penalties, from one eigen-decomposition.

    For a penalty l the weights minimise mean |y - bias - z w|^2 + l |w|^2 over standardised inputs
    z (Hoerl and Kennard, 1970). The bias is not penalised. With the correlation matrix
    Z^T Z / N = V diag(e) V^T, the weights are w = V diag(1 / (e + l)) V^T Z^T Y / N.

    Args:
        train: moments of the training pairs.

    Raises:
        ValueError: fewer than two pairs.
    """

    def __init__(self, train: Moments) -> None:
        if train.count < 2:
            raise ValueError(f"{train.count} training tokens with geometry: give more clips")
        self.mean, self.bias = train.mean_x, train.mean_y
        spread = np.sqrt(np.diag(train.xx) / train.count)
        flat = spread <= FLAT * np.maximum(np.abs(train.mean_x), 1.0)
        # A constant channel says nothing; what rounding leaves of it must not be amplified.
        self.scale = np.where(flat, np.inf, spread)
        correlation = train.xx / np.outer(self.scale, self.scale) / train.count
        values, self._basis = np.linalg.eigh((correlation + correlation.T) / 2)
        self._values = np.maximum(values, 0.0)
        self._shared = self._basis.T @ (train.xy / self.scale[:, None] / train.count)

    def fit(self, penalty: float) -> LinearFit:
        """The fit of one penalty > 0."""
        weights = self._basis @ (self._shared / (self._values + penalty)[:, None])
        return LinearFit(self.mean, self.scale, weights, self.bias)
