"""Videos and folders of images whose frames can be told apart after compression."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from explorer.clip import Clip

MakeVideo = Callable[..., Path]


def pattern(count: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Frames whose top left 16x16 pixels are grey of value 10 + 5 * number; see `make_video`."""
    frames = np.full((count, height, width, 3), 90, dtype=np.uint8)
    frames[:, height // 2 :, :, 0] = 180
    for number in range(count):
        frames[number, :16, :16] = 10 + 5 * number
    return frames


def numbers(clip: Clip) -> list[int]:
    return [round((float(frame[4:12, 4:12].mean()) - 10) / 5) for frame in clip.frames]


def write_images(folder: Path, names: list[str], *, size: tuple[int, int] = (96, 128)) -> Path:
    folder.mkdir(exist_ok=True)
    for name, frame in zip(names, pattern(len(names), *size), strict=True):
        assert cv2.imwrite(str(folder / name), frame[..., ::-1])
    return folder
