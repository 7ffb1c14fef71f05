"""Errors at true matches: the dense correspondence test of arXiv 2512.19949, over all slots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer.correspondence import correspondence_summary
from explorer.features import Features
from explorer.reconstruction import Reconstruction


@dataclass(frozen=True)
class TrueMatches:
    """How far the most similar token is from where the reference sees the same surface point.

    Attributes:
        error_px: mean distance in image pixels over `queries`; None when there is none.
        error_share: the same as a share of the image's longer side, for comparing input sizes.
        pck5, pck10: share of queries within 5 and 10 % of the longer side, 0 to 1.
        nothing_moves_px: `error_px` of answering that nothing moves.
        queries: (token, other slot) pairs whose true match is visible.
    """

    error_px: float | None
    error_share: float | None
    pck5: float | None
    pck10: float | None
    nothing_moves_px: float | None
    queries: int


def true_match_errors(
    features: Features, reference: Reconstruction, *, size: tuple[int, int]
) -> TrueMatches:
    """Every slot's token centres against every other's, see `correspondence_summary`.

    Args:
        features: S slots of an h x w token grid.
        reference: geometry with the slots' frames, at any resolution.
        size: (height, width) of the image in whose pixels errors are given.
    """
    found = correspondence_summary(features, reference, size=size)
    error = found["error_px"]
    return TrueMatches(
        error_px=error,
        error_share=None if error is None else float(np.divide(error, max(size))),
        pck5=found["pck5"],
        pck10=found["pck10"],
        nothing_moves_px=found["nothing_moves_px"],
        queries=int(found["queries"] or 0),
    )
