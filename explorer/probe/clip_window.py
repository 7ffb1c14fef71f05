"""Which frames of a prepared scene a backbone sees: as evenly spread over all of it as it can."""

from __future__ import annotations

import math

from explorer.backbones.base import BackboneCard
from explorer.window import most_frames


def window(card: BackboneCard, frames: int, stride: int | None = None) -> tuple[int, int]:
    """(stride, count) of the clip that a backbone sees of a scene, from its first frame on.

    Args:
        card: of the backbone.
        frames: of the scene.
        stride: between the clip's frames; None takes the least at which the clip reaches over all
            of the scene.
    """
    most = most_frames(card, card.max_frames)
    apart = stride or max(1, math.ceil((frames - 1) / max(most - 1, 1)))
    return apart, most_frames(card, len(range(0, frames, apart)))


def frames_seen(card: BackboneCard, frames: int, stride: int | None = None) -> int:
    """How many frames of a scene, from its first on, `window` reaches over."""
    apart, count = window(card, frames, stride)
    return (count - 1) * apart + 1
