"""Pictures as data URLs, so that panels need no files and no further requests."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from explorer._typing import UInt8


def data_url(image: UInt8[np.ndarray, "H W 3"], *, quality: int = 85) -> str:
    """A JPEG data URL of an RGB picture."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV could not encode a picture as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
