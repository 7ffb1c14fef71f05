"""Pictures of one correspondence: a tile for each slot, with heat, best match and truth."""

from __future__ import annotations

import numpy as np

from explorer._resize import resize
from explorer._typing import Float, UInt8
from explorer.colors import PREDICTION, draw_circle, draw_cross, draw_match, heat_overlay
from explorer.correspondence import Correspondence


def heat_range(heats: list[Float[np.ndarray, "h w"]]) -> tuple[float, float]:
    """(low, high) similarities that one colour scale spans over all tiles.

    Low is the median, not the minimum: most tokens are unlike the picked one, and some backbones
    put all similarities close to 1, where a fixed scale would show nothing.
    """
    if not heats:
        return -1.0, 1.0
    values = np.concatenate([heat.ravel() for heat in heats])
    return float(np.median(values)), float(values.max())


def correspondence_tiles(
    frames: UInt8[np.ndarray, "S H W 3"], found: Correspondence, *, scale: int = 2
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """One picture for each slot: the picked pixel in its own, the heatmap in all others.

    Args:
        frames: (S, H, W, 3) the frame that stands for each slot; H and W are `found.size`.
        found: matches in image pixels.
        scale: how many times larger than the frame a tile is, so that markers are sharp.

    Returns:
        S RGB pictures of (scale H, scale W): an orange cross on the best match, a green circle on
        the true one where it is known; the picked pixel has a cross in a circle.
    """
    low, high = heat_range([match.heat for match in found.others])
    height, width = found.size[0] * scale, found.size[1] * scale
    tiles = []
    for frame, match in zip(frames, found.matches, strict=True):
        large = resize(frame, (height, width))
        if match.picked:
            x, y = found.x * scale, found.y * scale
            drawn = draw_circle(large, x, y, color=(255, 255, 255))
            tiles.append(draw_cross(drawn, x, y, color=PREDICTION))
            continue
        heated = heat_overlay(large, match.heat, low=low, high=high)
        best = (match.best[0] * scale, match.best[1] * scale)
        truth = None if match.true is None else (match.true[0] * scale, match.true[1] * scale)
        tiles.append(draw_match(heated, best=best, truth=truth))
    return tiles
