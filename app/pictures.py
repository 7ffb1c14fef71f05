"""Pictures as data URLs, so that panels need no files and no further requests."""

from __future__ import annotations

import base64

import numpy as np

from explorer._typing import UInt8
from explorer.jpeg import encode_jpeg


def data_url(image: UInt8[np.ndarray, "H W 3"], *, quality: int = 85) -> str:
    """A JPEG data URL of an RGB picture."""
    data = encode_jpeg(image, quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
