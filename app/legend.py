"""What the colours of the viewer mean: the scales of depth and of error, and the cameras."""

from __future__ import annotations

from explorer import colors
from explorer.recording import DEPTH_RANGE, ERROR_RANGE

UNIT = "unit: mean distance of frame 0's points"


def html(*, error: bool = True, disputed: bool = False) -> str:
    """The legend below the viewer.

    Args:
        error: whether there is an error to show, which needs prediction and reference.
        disputed: whether a second judge has marked pixels of it.
    """
    meaning = f"{UNIT}, each side its own, not aligned; black: unknown"
    scales = [_scale("Depth", DEPTH_RANGE, meaning, ramp="ramp depth")]
    if error:
        scales.append(
            _scale(
                "Point error",
                ERROR_RANGE,
                "in the reference's unit, after one Sim(3) alignment of the whole clip; "
                f"grey: unknown{DISPUTED if disputed else ''}",
            )
        )
    return f"<div class='legend'>{''.join(scales)}{CAMERAS}</div>"


DISPUTED = (
    f"; <i class='patch' style='background: rgb{colors.DISPUTED}'></i> disputed by the second judge"
)


CAMERAS = (
    "<p><b>Cameras</b><span class='frustum prediction'></span>predicted"
    "<span class='frustum reference'></span>reference</p>"
)


def _scale(name: str, limits: tuple[float, float], meaning: str, *, ramp: str = "ramp") -> str:
    low, high = limits
    return (
        f"<p><b>{name}</b><span class='scale'>{low:g}<i class='{ramp}'></i>≥ {high:g}</span>"
        f"<small>{meaning}</small></p>"
    )
