"""Bootstrap intervals of means over clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from explorer._typing import Float


@dataclass(frozen=True)
class Interval:
    """A mean with the range that holds it at the given level.

    Attributes:
        mean: of the sample.
        low, high: ends of the interval.
        count: number of clips.
        level: e.g. 0.95.
    """

    mean: float
    low: float
    high: float
    count: int
    level: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign of the mean is settled at this level."""
        return self.low > 0 or self.high < 0


def mean_interval(
    values: Sequence[float] | Float[np.ndarray, " N"],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of the mean (Efron 1979); the unit of resampling is a clip.

    Raises:
        ValueError: fewer than two values, or one is not finite.

    >>> found = mean_interval([1.0, 2.0, 3.0, 4.0])
    >>> found.mean, found.low < 2.5 < found.high, found.excludes_zero
    (2.5, True, True)
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) < 2 or not np.isfinite(sample).all():
        raise ValueError(
            f"an interval needs two or more finite values, got {sample.shape}: {values}"
        )
    picks = np.random.default_rng(seed).integers(len(sample), size=(resamples, len(sample)))
    low, high = np.quantile(sample[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high), len(sample), level)


def paired_interval(
    a: Sequence[float] | Float[np.ndarray, " N"],
    b: Sequence[float] | Float[np.ndarray, " N"],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Interval of mean(a - b) where a[i] and b[i] belong to the same clip.

    Pairing takes the difficulty of the clips out: only how the two differ on each clip counts.

    Raises:
        ValueError: different lengths, fewer than two clips, or a value that is not finite.

    >>> paired_interval([1.0, 5.0, 9.0], [2.0, 6.0, 10.0]).high
    -1.0
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"pairs need equal lengths, got {first.shape} and {second.shape}")
    return mean_interval(first - second, level=level, resamples=resamples, seed=seed)
