"""How the published probing of video models cut CO3Dv2: a 16:9 crop and a window of frames.

From its protocol: a crop of 16:9 centred on the principal point with a border of 0.5, 960x540
pixels after resizing; the window of 81 frames, of those that start at every fourth frame, with the
least of the object cut off; sequences are left out whose object loses more than a quarter, or whose
crop would have to be enlarged more than 1.5 times. "A border of 0.5" is read here as half a pixel
between crop and picture, "least cut off" as the mean share of the mask outside the crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from explorer._typing import Float
from explorer.data.readers import _common as common
from explorer.errors import DatasetError

Crop = tuple[int, int, int, int]
"""(y0, x0, height, width)."""

ASPECT = (16, 9)
BORDER = 0.5
OUTPUT_WIDTH = 960
MAX_ENLARGED = 1.5
MAX_CUT_OFF = 0.25
STEP = 4


def crop_of(
    name: str, sizes: Sequence[tuple[int, int]], intrinsics: Float[np.ndarray, "N 3 3"]
) -> list[Crop]:
    """The largest 16:9 part of each frame around its principal point, of one size for all.

    Raises:
        DatasetError: a principal point lies outside its picture.
    """
    extent = np.array(sizes, dtype=np.float64)[:, ::-1]  # (width, height)
    center = intrinsics[:, :2, 2]
    half = np.minimum(center, extent - center) - BORDER
    if half.min() < 1:
        raise DatasetError(f"a principal point of {name} lies outside its picture")
    width, height = 2 * half.min(axis=0)
    width, height = min(width, height * ASPECT[0] / ASPECT[1]), height
    height = min(height, width * ASPECT[1] / ASPECT[0])
    rows, columns = max(int(height), 1), max(int(width), 1)
    corner = np.rint(center - np.array([columns, rows]) / 2).astype(int)
    corner = np.clip(corner, 0, extent.astype(int) - [columns, rows])
    return [(int(top), int(left), rows, columns) for left, top in corner]


def official_start(
    name: str, masks: Sequence[Path | None], crops: Sequence[Crop], count: int
) -> int:
    """Where the official window of `count` frames starts.

    Raises:
        DatasetError: the rule leaves this sequence out, or its masks are missing; says why.
    """
    if count > len(crops):
        raise DatasetError(f"{name} has {len(crops)} frames, too few for {count}")
    enlarged = OUTPUT_WIDTH / crops[0][3]
    if enlarged > MAX_ENLARGED:
        raise DatasetError(
            f"{name} is left out by the official rule: its 16:9 part is {crops[0][3]} columns "
            f"wide and would be enlarged {enlarged:.2f} times to {OUTPUT_WIDTH}, more than "
            f"{MAX_ENLARGED}"
        )
    share = np.array([_cut_off(name, path, crop) for path, crop in zip(masks, crops, strict=True)])
    starts = range(0, len(crops) - count + 1, STEP)
    means = [float(np.mean(share[start : start + count])) for start in starts]
    best = int(np.argmin(means))
    if means[best] > MAX_CUT_OFF:
        raise DatasetError(
            f"{name} is left out by the official rule: {means[best]:.0%} of the object lies "
            f"outside the 16:9 part even in its best window, more than {MAX_CUT_OFF:.0%}"
        )
    return starts[best]


def _cut_off(name: str, path: Path | None, crop: Crop) -> float:
    """Share of the object outside the crop; 0 where a mask is empty."""
    if path is None:
        raise DatasetError(f"{name} has no masks, by which the official window is chosen")
    mask = common.read_mask(path) > 127
    top, left, height, width = crop
    inside = mask[top : top + height, left : left + width].sum()
    return float(1 - inside / mask.sum()) if mask.any() else 0.0
