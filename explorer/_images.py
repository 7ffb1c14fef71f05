"""Folders of png and jpg images, read like the frames of a video."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from explorer._limits import Limits
from explorer._typing import UInt8
from explorer.errors import ClipError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
FPS = 30.0  # images carry no time; this only labels them
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start-of-frame markers


@dataclass(frozen=True)
class ImageFolder:
    """The images of one folder in natural order (2.png before 10.png), headers checked.

    Attributes:
        paths: the images.
        source_hash: sha256 over the images' own sha256, in order; names do not count.
    """

    paths: tuple[Path, ...]
    source_hash: str


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key that compares runs of digits as numbers."""
    parts = re.split(r"(\d+)", name.lower())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def read_folder(folder: Path, limits: Limits) -> ImageFolder:
    """List, check and hash a folder of images, without decoding them.

    Raises:
        ClipError: no images, images of several sizes, a broken header, or over a limit.
    """
    paths = sorted(
        (
            path
            for path in folder.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES
            and not path.name.startswith(".")
            and path.is_file()
        ),
        key=lambda path: (natural_key(path.name), path.name),
    )
    if not paths:
        raise ClipError(f"{folder.name} holds no png or jpg images: choose a folder that does")
    limits.check_bytes(folder.name, sum(path.stat().st_size for path in paths))
    digest = hashlib.sha256()
    first: tuple[int, int] | None = None
    for path in paths:
        data = path.read_bytes()
        size = header_size(path.name, data)
        limits.check_pixels(path.name, *size)
        first = first or size
        if size != first:
            raise ClipError(
                f"{folder.name} mixes image sizes: {path.name} is {size[1]}x{size[0]}, "
                f"{paths[0].name} is {first[1]}x{first[0]}; use images of one size"
            )
        digest.update(hashlib.sha256(data).digest())
    return ImageFolder(tuple(paths), digest.hexdigest())


def header_size(name: str, data: bytes) -> tuple[int, int]:
    """(height, width) as stated by a png or jpg header; also checks that the file is whole.

    Raises:
        ClipError: neither png nor jpg, or cut off.
    """
    if not data:
        raise ClipError(f"{name} is empty: remove it or copy it again")
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        if b"IEND" not in data[-64:] and data.rfind(b"IEND") < 0:
            raise _cut_off(name)
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    if data.startswith(b"\xff\xd8"):
        position = 2
        while position + 9 <= len(data) and data[position] == 0xFF:
            marker = data[position + 1]
            if marker in _JPEG_SIZES:
                # A thumbnail inside the file ends before the picture starts, so only a later
                # end-of-image marker shows that the picture itself is whole.
                if data.rfind(b"\xff\xd9") < position:
                    raise _cut_off(name)
                height = int.from_bytes(data[position + 5 : position + 7], "big")
                width = int.from_bytes(data[position + 7 : position + 9], "big")
                return height, width
            if marker == 0xFF:
                position += 1
                continue
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        raise _cut_off(name)
    raise ClipError(f"{name} is not a png or jpg image, whatever its name says: remove it")


def _cut_off(name: str) -> ClipError:
    return ClipError(f"{name} is cut off: its end is missing; copy it again or remove it")


def read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """One image as (H, W, 3) RGB, turned upright after its EXIF orientation.

    Raises:
        ClipError: the content is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ClipError(f"{path.name} cannot be read ({error}): copy it again") from error
    return decode_image(path.name, data)


def decode_image(name: str, data: bytes, *, upright: bool = True) -> UInt8[np.ndarray, "H W 3"]:
    """The image in a png or jpg file as (H, W, 3) RGB.

    Args:
        name: for people.
        data: of the file.
        upright: turn it after its EXIF orientation; else its pixels stay where intrinsics expect
            them.

    Raises:
        ClipError: the content is damaged.
    """
    import cv2

    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as error:
        raise ClipError(f"{name} cannot be read ({error}): copy it again") from error
    if image is None:
        raise ClipError(f"{name} is damaged: remove it or copy it again")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
