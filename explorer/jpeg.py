"""Pictures as JPEG, for the recording and for the page."""

from __future__ import annotations

import cv2
import numpy as np

from explorer._typing import UInt8


def encode_jpeg(
    image: UInt8[np.ndarray, "H W 3"], *, quality: int = 90, full_colour: bool = False
) -> bytes:
    """The bytes of a JPEG file of an RGB picture.

    Args:
        image: (H, W, 3) uint8 RGB, at least one pixel.
        quality: 0 to 100.
        full_colour: keep colour at every pixel (4:4:4); else at every fourth, as usual.

    Raises:
        ValueError: the picture has no pixels or is larger than a JPEG can be (65,535 a side).
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if full_colour:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    try:
        done, data = cv2.imencode(".jpg", image[..., ::-1], options)
    except cv2.error:
        done = False
    if not done:
        raise ValueError(f"a picture of shape {image.shape} cannot be JPEG: give 1 to 65535 a side")
    return bytes(data)
