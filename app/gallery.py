"""The shipped clips: their files, names and thumbnails."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

import numpy as np

from app.state import Source
from explorer._typing import UInt8
from explorer.assets import assets_root
from explorer.clip import inspect_video, load_clip
from explorer.errors import EmergeError

log = logging.getLogger(__name__)

THUMBNAIL = (90, 160)


@functools.cache
def shipped() -> tuple[Source, ...]:
    """All shipped clips that can be opened; empty where the assets were removed.

    Orbits around a room come first, since the page opens on the first clip: a room shows more than
    an open ground, of which half is sky.
    """
    folder = assets_root() / "clips"
    found = []
    for path in sorted(folder.glob("*.mp4"), key=_order):
        try:
            found.append(Source(path, title(path), inspect_video(path), shipped=True))
        except EmergeError as error:
            log.warning("shipped clip left out: %s", error)
    return tuple(found)


def _order(path: Path) -> tuple[bool, bool, str]:
    return "room" not in path.stem, "orbit" not in path.stem, path.stem


def title(path: Path) -> str:
    """A readable name of a clip file."""
    return path.stem.replace("_", " ").replace("-", " ")


def find(name: str | None) -> Source | None:
    """The shipped clip of this file name (without suffix), if there is one."""
    return next((source for source in shipped() if source.path.stem == name), None)


@functools.cache
def thumbnails() -> tuple[UInt8[np.ndarray, "90 160 3"], ...]:
    """The middle frame of each shipped clip, in the order of `shipped`."""
    return tuple(picture(source, source.info.frames // 2, size=THUMBNAIL) for source in shipped())


def pictures() -> list[tuple[UInt8[np.ndarray, "90 160 3"], str]]:
    """The thumbnail and the name of each shipped clip, in the order of `shipped`."""
    return [(each, source.name) for each, source in zip(thumbnails(), shipped(), strict=True)]


def position(source: Source | None) -> int | None:
    """Where a clip is in `shipped`; None for an upload."""
    paths = [each.path for each in shipped()]
    return paths.index(source.path) if source is not None and source.path in paths else None


def picture(source: Source, frame: int, *, size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """One frame of a video, cropped and resized to (height, width) `size`.

    Raises:
        ClipError: the frame cannot be decoded.
    """
    clip = load_clip(source.path, start=frame, stride=1, count=1, size=size)
    return np.asarray(clip.frames[0], dtype=np.uint8)
