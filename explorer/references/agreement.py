"""How far references agree: two of them are compared like prediction and reference."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from explorer._typing import Bool, Float
from explorer.metrics import compare
from explorer.metrics.align import similarity
from explorer.metrics.robust import distances, trimmed_similarity
from explorer.reconstruction import Reconstruction
from explorer.report import Report

TOLERANCE = 0.1
"""Judges disagree where their points, after one Sim(3), are further apart than this share of the
mean distance of the second judge's points from its first camera."""

ROUNDS = 20  # of fitting that Sim(3) to the points that agree, at most


@dataclass(frozen=True)
class Agreement:
    """What two judges of one clip say about each other.

    Attributes:
        report: of the first as prediction against the second, in the second's unit.
        distance: (S, H, W) between their points at the first one's frames and pixels, in the
            second's unit, NaN where one of them knows nothing. After the similarity that fits the
            pixels that agree: that of the report is pulled away by those that do not.
        threshold: from which distance on they disagree.
    """

    report: Report
    distance: Float[np.ndarray, "S H W"]
    threshold: float

    @property
    def known(self) -> Bool[np.ndarray, "S H W"]:
        """(S, H, W) pixels that both know."""
        return np.isfinite(self.distance)

    @property
    def disagree(self) -> Bool[np.ndarray, "S H W"]:
        """(S, H, W) pixels that both know and place further apart than `threshold`."""
        with np.errstate(invalid="ignore"):
            return self.distance > self.threshold

    @property
    def share(self) -> float:
        """Of the pixels that both know, how many disagree."""
        return float(self.disagree.sum() / max(1, self.known.sum()))


def agree(
    first: Reconstruction, second: Reconstruction, *, tolerance: float = TOLERANCE
) -> Agreement:
    """Compare two references of one clip, at the first one's frames and resolution.

    Args:
        first: taken as the prediction.
        second: taken as the reference.
        tolerance: share of the scene's scale, see `TOLERANCE`.

    Raises:
        ComparisonError: no frame or no pixel in common.
    """
    report = compare(first, second)
    threshold = tolerance * _scale(second)
    shared = np.isin(first.frames, second.frames)
    sampled = second.at_frames(first.frames[shared])
    if sampled.size != first.size:
        sampled = sampled.resized(*first.size)
    known = np.zeros(first.depth.shape, dtype=bool)
    known[shared] = first.valid[shared] & sampled.valid
    distance = np.full(first.depth.shape, np.nan)
    distance[known] = _distances(
        first.points[known].astype(np.float64),
        sampled.points[known[shared]].astype(np.float64),
        threshold,
    )
    return Agreement(report, distance, threshold)


def _distances(
    source: Float[np.ndarray, "N 3"], target: Float[np.ndarray, "N 3"], threshold: float
) -> Float[np.ndarray, " N"]:
    """(N,) after the similarity of the points that agree: of the better half, then of all of them.

    Where fewer than half do, it stays that of the better half.
    """
    found = distances(trimmed_similarity(source, target), source, target)
    for _ in range(ROUNDS):
        kept = found <= max(threshold, float(np.median(found)))
        found = distances(similarity(source[kept], target[kept]), source, target)
        if np.array_equal(kept, found <= max(threshold, float(np.median(found)))):
            break
    return found


def without(reference: Reconstruction, pixels: Bool[np.ndarray, "S H W"]) -> Reconstruction:
    """The reference as if it knew nothing in some pixels.

    Args:
        reference: of S frames of H x W.
        pixels: (S, H, W) true where it is not to be believed.
    """
    confidence = np.where(pixels, 0.0, reference.confidence).astype(reference.confidence.dtype)
    return replace(reference, confidence=confidence)


def _scale(reference: Reconstruction) -> float:
    """Mean distance of all known points from the first camera; of a normalised one about 1."""
    center = reference.cameras.centers[0]
    return float(np.linalg.norm(reference.points[reference.valid] - center, axis=-1).mean())
