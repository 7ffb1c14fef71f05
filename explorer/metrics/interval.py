"""Bootstrap intervals of means over clips, and over clips and seeds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from explorer._typing import Float, Int


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


def bootstrap_means(
    samples: Sequence[Float[np.ndarray, "_ N"]], *, resamples: int = 10_000, seed: int = 0
) -> Float[np.ndarray, "M R"]:
    """Means of M samples in R bootstrap resamples of their clips and of each one's seeds.

    All samples are taken on the same N clips, so that a difference or a ratio of two rows is one of
    pairs. Seeds of two samples have nothing to do with each other and are drawn for each. A sample
    of one seed varies over clips alone.

    Args:
        samples: (seeds, N) values each.
        resamples: R.
        seed: of the resampling.

    Raises:
        ValueError: no sample, fewer than two clips, unequal numbers of clips, or a value that is
            not finite.
    """
    arrays = [np.asarray(sample, dtype=np.float64) for sample in samples]
    counts = {array.shape[1:] for array in arrays}
    if len(counts) != 1 or min(counts.pop(), default=0) < 2:
        raise ValueError(f"samples need two or more clips, the same: {[a.shape for a in arrays]}")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("an interval needs finite values")
    picks, state = _picks(arrays[0].shape[1], resamples, seed)
    rng = np.random.default_rng()
    rng.bit_generator.state = state
    means = []
    for array in arrays:
        if len(array) == 1:
            means.append(array[0].take(picks).mean(axis=1))
            continue
        chosen = rng.integers(len(array), size=(resamples, len(array)))
        mixed = array[chosen].mean(axis=1)
        means.append(np.take_along_axis(mixed, picks, axis=1).mean(axis=1))
    return np.stack(means)


@functools.lru_cache(maxsize=1)
def _picks(clips: int, resamples: int, seed: int) -> tuple[Int[np.ndarray, "R N"], Any]:
    """(the clips of each resample, the state of the generator after them).

    All figures of a table are resampled alike, and drawing takes longer than the means.
    """
    rng = np.random.default_rng(seed)
    picks = rng.integers(clips, size=(resamples, clips))
    picks.setflags(write=False)
    return picks, rng.bit_generator.state


def range_of(values: Float[np.ndarray, " R"], *, level: float = 0.95) -> tuple[float, float]:
    """The ends of the middle `level` of bootstrap values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
