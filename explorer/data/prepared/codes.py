"""Pictures and maps as bytes, with a known loss.

Depth and confidence are logarithms in steps of fixed size, so that the relative error is the same
everywhere; 0 stays 0. Both are 16-bit PNG, pictures are JPEG (or PNG without loss): any tool reads
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer._images import decode_image
from explorer._typing import Float, UInt8
from explorer.errors import DatasetError

DEPTH_STEP = 2.0**-12
CONFIDENCE_STEP = 2.0**-8
MOST_STEPS = 65_534  # between the smallest and the largest value; code 0 is "nothing"
PNG_LEVEL = 6
LOSSLESS = 101
"""Picture quality above JPEG's 100: PNG."""


@dataclass(frozen=True)
class LogCode:
    """Positive numbers as whole steps of their logarithm.

    Attributes:
        least: the number with code 1.
        step: of the natural logarithm.
    """

    least: float
    step: float

    @classmethod
    def fit(cls, values: Float[NDArray[Any], "..."], *, step: float) -> LogCode:
        """For the positive numbers in an array; the step is wider where 16 bits do not span them.

        Raises:
            ValueError: a number is negative or not finite.
        """
        if not np.isfinite(values).all() or (values < 0).any():
            raise ValueError("a number is negative or not finite; write 0 where nothing is known")
        known = values[values > 0].astype(np.float64)
        if not len(known):
            return cls(1.0, step)
        least, span = float(known.min()), float(np.log(known.max() / known.min()))
        return cls(least, max(step, span / MOST_STEPS))

    @property
    def relative_error(self) -> float:
        """The largest that rounding to steps can make."""
        return float(np.expm1(self.step / 2))

    def encode(self, values: Float[NDArray[Any], "..."]) -> NDArray[np.uint16]:
        """Codes of an array of any shape."""
        known = values > 0
        codes = np.zeros(values.shape, dtype=np.uint16)
        steps = np.log(values[known].astype(np.float64) / self.least) / self.step
        codes[known] = np.rint(steps).astype(np.uint16) + 1
        return codes

    def decode(self, codes: NDArray[np.uint16]) -> Float[NDArray[Any], "..."]:
        """float32 numbers of codes."""
        # One entry for each code: fewer exponentials than pixels.
        table = self.least * np.exp((np.arange(int(codes.max(initial=0)) + 1) - 1) * self.step)
        table[0] = 0.0
        return np.asarray(table.astype(np.float32)[codes])

    def to_dict(self) -> dict[str, float]:
        """For a record."""
        return {"least": self.least, "step": self.step}

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> LogCode:
        """Out of a record."""
        return cls(float(values["least"]), float(values["step"]))


def encode_map(codes: NDArray[np.uint16]) -> bytes:
    """The bytes of a 16-bit PNG of (H, W) codes."""
    import cv2

    _, data = cv2.imencode(".png", codes, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])
    return bytes(data)


def decode_map(name: str, data: bytes) -> NDArray[np.uint16]:
    """(H, W) codes.

    Raises:
        DatasetError: the bytes are no 16-bit PNG.
    """
    import cv2

    found = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16 or found.ndim != 2:
        raise DatasetError(f"{name} is no map of 16 bits: the file is damaged")
    return np.asarray(found)


def encode_picture(image: UInt8[np.ndarray, "H W 3"], *, quality: int) -> bytes:
    """The bytes of an RGB picture: JPEG with colour at every pixel, PNG for quality `LOSSLESS`."""
    import cv2

    from explorer.jpeg import encode_jpeg

    if quality < LOSSLESS:
        return encode_jpeg(image, quality=quality, full_colour=True)
    options = [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL]
    _, data = cv2.imencode(".png", image[..., ::-1], options)
    return bytes(data)


def decode_picture(name: str, data: bytes) -> UInt8[np.ndarray, "H W 3"]:
    """The RGB picture of `encode_picture`.

    Raises:
        ClipError: the bytes are damaged.
    """
    return decode_image(name, data, upright=False)


def psnr(first: UInt8[NDArray[Any], "..."], second: UInt8[NDArray[Any], "..."]) -> float:
    """Peak signal to noise ratio of two arrays of pictures in dB; infinite where they agree."""
    error = float(np.mean((first.astype(np.float32) - second) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))
