"""Which frames of a video a look takes, where nobody has chosen them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from explorer.backbones.base import BackboneCard
    from explorer.clip import VideoInfo

MAX_STRIDE = 16


@dataclass(frozen=True)
class Window:
    """First frame, distance between frames and number of frames, all in frames of the video."""

    start: int
    stride: int
    count: int

    @property
    def last(self) -> int:
        """The last frame taken."""
        return self.start + (self.count - 1) * self.stride


def most_frames(card: BackboneCard, available: int) -> int:
    """The largest frame count that a backbone takes, of `available` frames; at least 1."""
    most = max(min(card.max_frames, available), 1)
    return (most - 1) // card.frame_step * card.frame_step + 1


def suggested_window(
    info: VideoInfo,
    card: BackboneCard,
    *,
    start: int | None = None,
    stride: int | None = None,
    count: int | None = None,
) -> Window:
    """As many frames as the backbone takes, spread over about a second of video.

    What is given stays, and the rest is chosen for it. A given window that does not fit the video
    is not mended: loading it says which would.

    Args:
        info: of the video.
        card: of the backbone.
        start: first frame; 0 when None.
        stride: distance between frames, at most `MAX_STRIDE` when None.
        count: number of frames.
    """
    start = 0 if start is None else start
    available = info.frames - start
    if count is None:
        count = most_frames(card, len(range(0, available, max(stride or 1, 1))))
    if stride is None:
        steps = count - 1
        about_a_second = round(info.fps / steps) if steps > 0 else 1
        possible = (available - 1) // max(steps, 1)
        stride = max(1, min(about_a_second, possible, MAX_STRIDE))
    return Window(start, stride, count)
