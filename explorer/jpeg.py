"""Pictures as JPEG, for the recording and for the page."""

from __future__ import annotations

import cv2
import numpy as np

from explorer._typing import UInt8


def encode_jpeg(image: UInt8[np.ndarray, "H W 3"], *, quality: int = 90) -> bytes:
    """The bytes of a JPEG file of an RGB picture.

    Args:
        image: (H, W, 3) uint8 RGB, at least one pixel.
        quality: 0 to 100.

    Raises:
        ValueError: the picture has no pixels or is larger than a JPEG can be (65,535 a side).
    """
    try:
        done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error:
        done = False
    if not done:
        raise ValueError(f"a picture of shape {image.shape} cannot be JPEG: give 1 to 65535 a side")
    return bytes(data)
