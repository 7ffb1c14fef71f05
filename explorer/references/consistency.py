"""How far a reference agrees with itself.

It does where a frame's points, carried into another frame, land on that frame's depth: on a static
scene everything does but occlusions, which are no disagreement; what moves does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from explorer._typing import Bool, Float
from explorer.camera import project
from explorer.reconstruction import Reconstruction

SAME_SURFACE = 0.05
"""Two depths are of one surface where they differ by at most this share."""

BEHIND = 1.25
"""A point is hidden, and no judgement possible, where the other frame's depth lies in front of it
by more than this factor. Nearer to it but off is a disagreement, as is any surface that the other
frame sees behind where the point should be."""

LOW = 0.95
"""Mean consistency below which a reference should be doubted: something moves, or it is wrong.
Exact geometry of the world's first 300 scenes of each family, 17 frames of 144 x 256: none of the
static ones (split "test") is below it, the lowest at 0.957 and half above 0.997; of the dynamic
ones (split "dynamic", 60 % of the objects move) 243 are, half of them below 0.880."""

PAIRS = 4  # frames that each frame is carried into, at most
PIXELS = 3000  # of each frame, about


@dataclass(frozen=True)
class Consistency:
    """How much of each frame's depth other frames confirm.

    Attributes:
        per_frame: (S,) share of the pixels that another frame sees too and confirms; NaN where no
            pixel could be judged.
        judged: (S,) number of (pixel, other frame) pairs behind each share.
    """

    per_frame: Float[np.ndarray, " S"]
    judged: Float[np.ndarray, " S"]

    @property
    def mean(self) -> float:
        """Mean over the frames that could be judged; NaN if none."""
        known = np.isfinite(self.per_frame)
        return float(self.per_frame[known].mean()) if known.any() else float("nan")


def consistency(
    reference: Reconstruction,
    *,
    tolerance: float = SAME_SURFACE,
    pairs: int = PAIRS,
    pixels: int = PIXELS,
) -> Consistency:
    """Carry each frame's points into a few other frames and compare with their depth.

    The points are those that errors are measured with: of most references unprojected depth.

    A point that another frame sees (it projects inside, on known depth) counts as confirmed where
    the depths differ by at most `tolerance`, relative to the point's. It is left out where another
    surface lies well in front of it (`BEHIND`): an occlusion says nothing. Under `tolerance` of
    motion along the ray and on untextured ground that moves within itself nothing is noticed.

    Args:
        reference: dense geometry of two frames or more.
        tolerance: relative depth difference of one surface.
        pairs: other frames for each, spread evenly over the clip.
        pixels: of each frame, on a regular grid; about this many at most.

    Raises:
        ValueError: the reference is sparse: its points are made to agree.
    """
    if reference.sparse:
        raise ValueError("sparse points are made to agree with each other")
    count = len(reference.frames)
    step = max(1, int(np.ceil(np.sqrt(np.prod(reference.size) / pixels))))
    rows = np.arange(step // 2, reference.size[0], step)
    columns = np.arange(step // 2, reference.size[1], step)
    valid = reference.valid
    shares, judged = np.full(count, np.nan), np.zeros(count)
    for slot in range(count):
        grid = np.ix_(rows, columns)
        known = valid[slot][grid]
        points = reference.points[slot][grid][known].astype(np.float64)
        confirmed = seen = 0
        for other in _others(slot, count, pairs):
            good, usable = _confirmed(reference, valid[other], points, other, tolerance)
            confirmed, seen = confirmed + good, seen + usable
        if seen:
            shares[slot], judged[slot] = confirmed / seen, seen
    return Consistency(shares, judged)


def summary(reference: Reconstruction) -> dict[str, Any]:
    """`consistency` of a dense reference, ready for JSON but for NaN.

    `mean`, whether that is `low`, and `per_frame` the share of each.

    Raises:
        ValueError: the reference is sparse.
    """
    found = consistency(reference)
    per_frame = [
        {"frame": int(frame), "consistency": float(share)}
        for frame, share in zip(reference.frames, found.per_frame, strict=True)
    ]
    return {"mean": found.mean, "low": found.mean < LOW, "per_frame": per_frame}


def _others(slot: int, count: int, pairs: int) -> list[int]:
    """Up to `pairs` other positions, spread over all of them, neighbours included.

    >>> _others(0, 17, 4), _others(1, 3, 4)
    ([1, 6, 11, 16], [0, 2])
    """
    rest = [other for other in range(count) if other != slot]
    if len(rest) <= pairs:
        return rest
    picked = np.linspace(0, len(rest) - 1, pairs).round().astype(int)
    return [rest[index] for index in picked]


def _confirmed(
    reference: Reconstruction,
    valid: Bool[np.ndarray, "H W"],
    points: Float[np.ndarray, "N 3"],
    other: int,
    tolerance: float,
) -> tuple[int, int]:
    """(points that a frame confirms, points that it can judge)."""
    height, width = reference.size
    pixels, z = project(
        points,
        reference.cameras.cam_from_world[other].astype(np.float64),
        reference.cameras.intrinsics[other].astype(np.float64),
    )
    inside = (z > 0) & (pixels >= 0).all(axis=1) & (pixels < [width, height]).all(axis=1)
    pixels, z = pixels[inside], z[inside]
    x, y = np.floor(pixels).astype(np.int64).T
    # On a slope neighbouring depths differ by more than the tolerance: any of a few may fit.
    best = np.full(len(z), np.inf)
    for down, right in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)):
        row, column = np.clip(y + down, 0, height - 1), np.clip(x + right, 0, width - 1)
        off = np.abs(reference.depth[other, row, column] - z) / z
        best = np.minimum(best, np.where(valid[row, column], off, np.inf))
    hidden = z > BEHIND * reference.depth[other, y, x]
    same = best <= tolerance
    usable = valid[y, x] & (same | ~hidden)
    return int((same & usable).sum()), int(usable.sum())
