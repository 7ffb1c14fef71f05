"""From source frames to the frames of a clip: cropped or stretched to a shape, with OpenCV."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import numpy as np

from explorer._decode import Picture
from explorer._limits import Limits
from explorer._typing import UInt8
from explorer.errors import ClipError

Fit: TypeAlias = Literal["crop", "stretch"]
"""How a picture of another shape is brought to the wanted one: its largest centred part is taken,
or all of it is stretched."""


def cover_crop(
    source: tuple[int, int], size: tuple[int, int], *, pixel_aspect: float = 1.0
) -> tuple[int, int, int, int]:
    """(y0, x0, height, width) of the largest centred part of `source` in the shape of `size`.

    `pixel_aspect` is the width of a source pixel over its height.
    """
    wanted = size[1] / size[0] / pixel_aspect
    height = min(source[0], max(1, round(source[1] / wanted)))
    width = min(source[1], max(1, round(source[0] * wanted)))
    return (source[0] - height) // 2, (source[1] - width) // 2, height, width


def enlarged(
    size: tuple[int, int],
    source: tuple[int, int],
    crop: tuple[int, int, int, int],
    most: float,
) -> tuple[int, int]:
    """The largest (height, width) in the shape of `size`, up to so many times as large.

    Never of more pixels than the source has in `crop`. Not every size will do: that of the same
    part of the source to the pixel, for which geometry is.

    >>> enlarged((144, 256), (281, 500), (0, 0, 281, 500), 4.0)
    (281, 500)
    """
    height, width = size
    factor = min(most, crop[2] / height, crop[3] / width)
    for rows in range(int(height * factor + 1e-9), height, -1):
        larger = (rows, round(rows * width / height))
        if cover_crop(source, larger) == crop:
            return larger
    whole = max(1, int(factor))  # pixels that are not square
    return whole * height, whole * width


def resize(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """An image stretched to (height, width) `size`; the same array where it has it already.

    Axes that shrink are averaged over areas, the antialiased choice; OpenCV's area method would
    repeat pixels where an axis grows, so there it is bilinear.
    """
    import cv2

    shrunk = (min(image.shape[0], size[0]), min(image.shape[1], size[1]))
    for (height, width), method in ((shrunk, cv2.INTER_AREA), (size, cv2.INTER_LINEAR)):
        if image.shape[:2] != (height, width):
            resized = cv2.resize(image, (width, height), interpolation=method)
            image = np.asarray(resized, dtype=np.uint8)
    return image


def collect(
    name: str,
    pictures: Iterable[Picture],
    count: int,
    size: tuple[int, int] | None,
    limits: Limits,
    *,
    fit: Fit = "crop",
) -> tuple[UInt8[np.ndarray, "T H W 3"], tuple[int, int], tuple[int, int, int, int]]:
    """Resize while decoding, so that only the small frames are ever held together.

    Returns:
        (T, H, W, 3) frames, the (height, width) of the source, and the crop taken from it.

    Raises:
        ClipError: the decoded clip is over a limit, or the source changes its size on the way.
    """
    frames: UInt8[np.ndarray, "T H W 3"] | None = None
    for position, picture in enumerate(pictures):
        source = (picture.rgb.shape[0], picture.rgb.shape[1])
        if frames is None:
            source_size = source
            crop = (
                (0, 0, *source)
                if size is None or fit == "stretch"
                else cover_crop(source, size, pixel_aspect=picture.pixel_aspect)
            )
            out = size or source
            limits.check_bytes(f"the decoded window of {name}", count * out[0] * out[1] * 3)
            frames = np.empty((count, *out, 3), dtype=np.uint8)
        elif source != source_size:
            raise ClipError(
                f"{name} changes its picture size from {source_size[1]}x{source_size[0]} to "
                f"{source[1]}x{source[0]}: choose another window, or convert it to one size"
            )
        y0, x0, height, width = crop
        part = np.ascontiguousarray(picture.rgb[y0 : y0 + height, x0 : x0 + width])
        frames[position] = resize(part, out)
    if frames is None:
        raise ClipError(f"{name} has no frames: choose another video")
    return frames, source_size, crop
