"""One look: clip + backbone + layer + sigma -> everything shown, as a stream of stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from explorer._look_stages import (
    Compared,
    Decoded,
    FeaturesReady,
    Finished,
    FramePredicted,
    LatentsReady,
    LookRequest,
    Predicted,
    Referenced,
    Stage,
)
from explorer.backbones.base import never

if TYPE_CHECKING:
    from explorer.store import Store

__all__ = [
    "Compared",
    "Decoded",
    "FeaturesReady",
    "Finished",
    "FramePredicted",
    "LatentsReady",
    "LookRequest",
    "Predicted",
    "Referenced",
    "Stage",
    "look",
]


def look(
    request: LookRequest,
    *,
    store: Store,
    should_stop: Callable[[], bool] = never,
) -> Iterator[Stage]:
    """Look at one cell; each stage is yielded as soon as it is there.

    Order: Decoded, LatentsReady, FeaturesReady, FramePredicted (one a slot), Predicted, Referenced,
    Compared, Finished. Without a probe for the cell there is no FramePredicted and Predicted says
    which cells have one; without a reference the metrics are None.

    Raises:
        EmergeError: bad clip, backbone, layer, sigma or reference.
        Cancelled: `should_stop` became true; nothing of the unfinished step is stored.
    """
    raise NotImplementedError
    yield
