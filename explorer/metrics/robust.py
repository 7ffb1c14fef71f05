"""The similarity that most points agree on, whatever the others say."""

from __future__ import annotations

import numpy as np

from explorer._typing import Bool, Float
from explorer.metrics.align import similarity
from explorer.report import Alignment

STARTS = 60
SAMPLE = 4  # points of a start
POINTS = 2000  # that starts are judged on
FINALISTS = 4
ROUNDS = 30


def trimmed_similarity(
    source: Float[np.ndarray, "N 3"], target: Float[np.ndarray, "N 3"]
) -> Alignment:
    """Similarity target ~ s R source + t fitted to the half of the points that it fits best.

    Least trimmed squares by concentration from random starts (Rousseeuw and Van Driessen 2006):
    up to nearly half of the points may be anywhere. Seeded: the same points give the same answer.

    Args:
        source: (N, 3) finite points, N >= 1.
        target: (N, 3) finite points, their counterparts.

    Raises:
        ComparisonError: there is no point, or one is not finite.
    """
    whole = similarity(source, target)
    rng = np.random.default_rng(0)
    count = len(source)
    few = rng.permutation(count)[:POINTS]
    starts = [whole]
    for _ in range(STARTS):
        drawn = rng.integers(count, size=SAMPLE)
        starts.append(similarity(source[drawn], target[drawn]))
    tried = [_concentrated(start, source[few], target[few], rounds=2) for start in starts]
    best = sorted(tried, key=lambda fit: _spread(fit, source[few], target[few]))[:FINALISTS]
    done = [_concentrated(fit, source, target, rounds=ROUNDS) for fit in best]
    return min(done, key=lambda fit: _spread(fit, source, target))


def distances(
    fit: Alignment, source: Float[np.ndarray, "N 3"], target: Float[np.ndarray, "N 3"]
) -> Float[np.ndarray, " N"]:
    """(N,) between aligned source points and their targets."""
    return np.linalg.norm(fit.apply(source) - target, axis=1)


def _concentrated(
    fit: Alignment,
    source: Float[np.ndarray, "N 3"],
    target: Float[np.ndarray, "N 3"],
    *,
    rounds: int,
) -> Alignment:
    kept: Bool[np.ndarray, " N"] | None = None
    for _ in range(rounds):
        found = distances(fit, source, target)
        chosen = found <= np.median(found)
        if kept is not None and np.array_equal(chosen, kept):
            break
        fit, kept = similarity(source[chosen], target[chosen]), chosen
    return fit


def _spread(
    fit: Alignment, source: Float[np.ndarray, "N 3"], target: Float[np.ndarray, "N 3"]
) -> float:
    """Sum of the squares of the better half."""
    found = np.sort(distances(fit, source, target))
    return float((found[: (len(found) + 1) // 2] ** 2).sum())
