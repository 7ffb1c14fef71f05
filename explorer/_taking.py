"""Which frames of a source a clip takes, and the hash that says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from explorer._limits import Limits
from explorer._resize import Fit
from explorer.errors import ClipError

_RECIPE = 1  # part of the content hash: raise it when the way from file to frames changes


def check_window(start: int, stride: int, count: int | None, size: tuple[int, int] | None) -> None:
    """Raises ClipError: a number of the window makes no sense for any video."""
    if start < 0:
        raise ClipError(f"start is {start}: the first frame is 0")
    if stride < 1:
        raise ClipError(f"stride is {stride}: it must be 1 or more")
    if count is not None and count < 1:
        raise ClipError(f"count is {count}: take at least 1 frame")
    if size is not None and min(size) < 1:
        raise ClipError(f"size is {size}: height and width must be 1 or more")


def window(
    name: str, total: int, start: int, stride: int, count: int | None, limits: Limits
) -> range:
    """The frames of a window, of a source that has `total`.

    Raises:
        ClipError: the source is too short, or the window over a limit; says which would do.
    """
    possible = len(range(start, total, stride))
    if possible == 0:
        raise ClipError(
            f"{name} has {total} frames; a window cannot start at frame {start}: "
            f"start at {total - 1} or before"
        )
    if count is not None and count > possible:
        last_start = total - 1 - (count - 1) * stride
        advice = f"take at most {possible} frames"
        if last_start >= 0:
            advice += f", or start at frame {last_start} or before"
        elif stride > 1 and total >= count:
            advice += f", or use a stride of at most {(total - 1) // (count - 1)} from frame 0"
        raise ClipError(
            f"{name} has {total} frames, too few for {count} frames with stride {stride} from "
            f"frame {start}: {advice}"
        )
    taken = possible if count is None else count
    limits.check_frames(name, taken)
    return range(start, start + (taken - 1) * stride + 1, stride)


def content_hash(
    source_hash: str, taken: Sequence[int], size: tuple[int, int] | None, fit: Fit = "crop"
) -> str:
    """sha256 of a source's hash, the frames taken, the (height, width) asked for and the fit."""
    sampling: dict[str, object] = {
        "recipe": _RECIPE,
        "source": source_hash,
        "frames": [int(frame) for frame in taken],
        "size": None if size is None else [int(size[0]), int(size[1])],
    }
    if size is not None and fit != "crop":
        sampling["fit"] = fit
    return hashlib.sha256(json.dumps(sampling, sort_keys=True).encode()).hexdigest()
