"""Colour maps, heat overlays and correspondence markers, drawn with OpenCV."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from explorer._typing import Bool, Float, UInt8
from explorer.correspondence import upsample_heat

# Orange and bluish green differ for every kind of colour vision (Okabe and Ito 2008), and so do the
# steps of viridis and inferno, which also stay in order when printed in grey.
PREDICTION = (240, 140, 30)
REFERENCE = (0, 158, 115)
UNKNOWN = (128, 128, 128)
DEPTH_MAP: Final = "viridis"
ERROR_MAP: Final = "inferno"
"""Of errors and of similarities."""
DISPUTED = (216, 190, 244)  # on neither the error's scale nor the pane's ground


def colorize(
    values: Float[np.ndarray, "H W"], *, low: float, high: float
) -> UInt8[np.ndarray, "H W 3"]:
    """(H, W, 3) RGB of values between `low` and `high` in `ERROR_MAP`; grey where not finite."""
    finite = np.isfinite(values)
    span = max(high - low, 1e-12)
    unit = np.clip((np.where(finite, values, low) - low) / span, 0.0, 1.0)
    bgr = cv2.applyColorMap((unit * 255.0 + 0.5).astype(np.uint8), cv2.COLORMAP_INFERNO)
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    rgb[~finite] = UNKNOWN
    return rgb


def heat_overlay(
    image: UInt8[np.ndarray, "H W 3"],
    heat: Float[np.ndarray, "h w"],
    *,
    low: float,
    high: float,
    opacity: float = 0.85,
    dimmed: float = 0.6,
) -> UInt8[np.ndarray, "H W 3"]:
    """(H, W, 3) picture, in grey and dimmed, under the bilinear heatmap of token similarities.

    Low similarity lets the picture show through, so the eye finds the peak and not the colour map's
    dark end; the picture's own colours would be taken for heat.
    """
    height, width = image.shape[:2]
    dense = upsample_heat(heat, (height, width))
    unit = np.clip((dense - low) / max(high - low, 1e-12), 0.0, 1.0)[..., None]
    colours = colorize(dense, low=low, high=high).astype(np.float64)
    grey = dimmed * cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)[..., None]
    mixed = grey * (1.0 - opacity * unit) + colours * (opacity * unit)
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def draw_cross(
    image: UInt8[np.ndarray, "H W 3"], x: float, y: float, *, color: tuple[int, int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    """A copy with a cross, edged in black, at image point (x, y)."""
    drawn = np.ascontiguousarray(image).copy()
    size = max(6, image.shape[0] // 12)
    for edge, thickness in _strokes(image.shape[0], color):
        cv2.drawMarker(drawn, _pixel(x, y), edge, cv2.MARKER_CROSS, size, thickness, cv2.LINE_AA)
    return drawn


def draw_circle(
    image: UInt8[np.ndarray, "H W 3"], x: float, y: float, *, color: tuple[int, int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    """A copy with a circle, edged in black, around image point (x, y)."""
    drawn = np.ascontiguousarray(image).copy()
    radius = max(4, image.shape[0] // 24)
    for edge, thickness in _strokes(image.shape[0], color):
        cv2.circle(drawn, _pixel(x, y), radius, edge, thickness, cv2.LINE_AA)
    return drawn


def draw_match(
    image: UInt8[np.ndarray, "H W 3"],
    *,
    best: tuple[float, float],
    truth: tuple[float, float] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """A copy with the best match as an orange cross, the truth, where known, as a green circle."""
    drawn = image if truth is None else draw_circle(image, *truth, color=REFERENCE)
    return draw_cross(drawn, *best, color=PREDICTION)


def masked(
    values: Float[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W"]:
    """The values with 0 wherever `valid` is false."""
    return np.where(valid, values, 0.0).astype(np.float32)


def _strokes(
    height: int, color: tuple[int, int, int]
) -> tuple[tuple[tuple[int, int, int], int], ...]:
    """A black edge, then the colour over it; both grow with the picture."""
    inner = max(1, round(height / 110))
    return (((0, 0, 0), inner + 2), (color, inner))


def _pixel(x: float, y: float) -> tuple[int, int]:
    # The centre of the first pixel is at 0.5 here and at 0 in OpenCV.
    return int(np.floor(x)), int(np.floor(y))
