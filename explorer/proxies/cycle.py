"""Whether matches that are followed from slot to slot come back to where they started."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer._typing import Int
from explorer.correspondence import token_centers
from explorer.features import Features
from explorer.proxies.matching import top_matches


@dataclass(frozen=True)
class CycleConsistency:
    """Figures are None where there is one slot only.

    Attributes:
        mutual_share: over all ordered pairs of slots, the share of tokens that come back to
            themselves: to the other slot's most similar token, and from there to this slot's.
            0 to 1, but about one half by chance: features of independent noise reach
            N / (2 N - 1) on N tokens.
        return_px: mean distance in image pixels from a token to where it comes back.
        loop_share: share of the first slot's tokens that, followed through all slots in order and
            from the last back to the first, arrive within one token of where they started, along
            each axis. Tokens that leave the view or are hidden on the way cannot.
        loop_px: mean distance in image pixels from there to where they started.
    """

    mutual_share: float | None
    return_px: float | None
    loop_share: float | None
    loop_px: float | None


def cycle_consistency(
    features: Features,
    *,
    size: tuple[int, int],
    matches: Int[np.ndarray, "S S N"] | None = None,
) -> CycleConsistency:
    """Follow top-1 matches by cosine similarity out and back.

    Args:
        features: S slots of an h x w token grid.
        size: (height, width) of the image in whose pixels distances are given.
        matches: `top_matches` of these features, where they are known already.
    """
    if matches is None:
        matches = top_matches(features)
    slots, _, count = matches.shape
    if slots < 2:
        return CycleConsistency(None, None, None, None)
    start = np.arange(count)
    centers = token_centers(features.grid, size)
    pairs = [(a, b) for a in range(slots) for b in range(slots) if a != b]
    back = np.stack([matches[b, a][matches[a, b]] for a, b in pairs])
    reached = start
    for slot in range(slots):
        reached = matches[slot, (slot + 1) % slots][reached]
    columns = features.grid[1]
    steps = np.maximum(
        abs(reached // columns - start // columns), abs(reached % columns - start % columns)
    )
    return CycleConsistency(
        mutual_share=float((back == start).mean()),
        return_px=float(np.linalg.norm(centers[back] - centers, axis=-1).mean()),
        loop_share=float((steps <= 1).mean()),
        loop_px=float(np.linalg.norm(centers[reached] - centers, axis=-1).mean()),
    )
