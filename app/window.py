"""The window: which frames of a video a look takes, and a picture of the first and the last."""

from __future__ import annotations

from html import escape

from app import gallery
from app.pictures import data_url
from app.state import Source
from explorer.backbones.base import BackboneCard
from explorer.errors import EmergeError
from explorer.window import MAX_STRIDE, Window, most_frames, suggested_window

__all__ = ["MAX_STRIDE", "Window", "counts", "kept", "preview", "suggested"]

PREVIEW = (54, 96)
SHOWN_COUNTS = 9


def counts(card: BackboneCard, available: int) -> list[int]:
    """Frame counts that a backbone takes, at most what the video has; at least [1]."""
    legal = list(range(1, most_frames(card, available) + 1, card.frame_step))
    if len(legal) <= SHOWN_COUNTS:
        return legal
    step = (len(legal) - 1) / (SHOWN_COUNTS - 1)
    return [legal[round(index * step)] for index in range(SHOWN_COUNTS)]


def suggested(source: Source, card: BackboneCard) -> Window:
    """What the command line takes too when nothing is chosen."""
    return suggested_window(source.info, card)


def kept(source: Source, card: BackboneCard, current: Window) -> Window:
    """The current window with as many of its frames as the backbone takes and the video has.

    First frame and stride stay; where not even one frame fits, it is the suggested window.
    """
    frames = source.info.frames
    possible = [
        count
        for count in counts(card, frames)
        if Window(current.start, current.stride, count).last < frames
    ]
    if not possible:
        return suggested(source, card)
    fewer = [count for count in possible if count <= current.count]
    return Window(current.start, current.stride, max(fewer, default=possible[0]))


def preview(source: Source | None, window: Window) -> str:
    """The chosen frames in words and two pictures; says so when they do not fit the video."""
    if source is None:
        return "<div class='window'>No video chosen.</div>"
    info = source.info
    facts = f"{info.frames} frames, {info.seconds:.1f} s, {info.size[1]}×{info.size[0]}"
    head = f"<p><b>{escape(source.name)}</b><span>{facts}</span></p>"
    if window.last >= info.frames:
        return (
            f"<div class='window'>{head}<p class='bad'>This window ends at frame {window.last}; "
            f"the last frame is {info.frames - 1}. Start earlier, or take fewer frames or a "
            "smaller stride.</p></div>"
        )
    try:
        ends = sorted({window.start, window.last})
        shown = "".join(
            f"<figure><img src='{data_url(gallery.picture(source, frame, size=PREVIEW))}' "
            f"alt='frame {frame}'><figcaption>frame {frame}</figcaption></figure>"
            for frame in ends
        )
    except EmergeError as error:
        return f"<div class='window'>{head}<p class='bad'>{escape(str(error))}</p></div>"
    kind = "window" if source.shipped else "window own"
    return f"<div class='{kind}'><div class='ends'>{shown}{head}</div></div>"
