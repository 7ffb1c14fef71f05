"""What the colours of the viewer mean: the scales of depth and of error, and the cameras."""

from __future__ import annotations

from html import escape

from explorer import colors
from explorer.recording import DEPTH_RANGE, ERROR_RANGE

UNIT = "unit: mean distance of frame 0's points"


def html(
    *,
    error: bool = True,
    disputed: bool = False,
    no_prediction: str | None = None,
    reference: str | None = None,
) -> str:
    """The legend below the viewer.

    Args:
        error: whether there is an error to show, which needs prediction and reference.
        disputed: whether a second judge has marked pixels of it.
        no_prediction: why that side of the viewer is empty, None where it is not.
        reference: why the other side is empty, or what to keep in mind about it: an estimate.
    """
    meaning = f"{UNIT}, each side its own, not aligned; black: unknown"
    scales = [_scale("Depth", DEPTH_RANGE, meaning, ramp="ramp depth")]
    if error:
        scales.append(
            _scale(
                "Point error",
                ERROR_RANGE,
                "in the reference's unit, the clip aligned by one rotation, translation and scale; "
                f"grey: unknown{DISPUTED if disputed else ''}",
            )
        )
    said = [
        f"<p><b>{side}</b><small>{escape(reason)}</small></p>"
        for side, reason in (("Prediction", no_prediction), ("Reference", reference))
        if reason is not None
    ]
    return f"<div class='legend'>{''.join(said)}{''.join(scales)}{CAMERAS}</div>"


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
