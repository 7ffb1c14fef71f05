"""`Clip`: the decoded frames of one video, and exactly where in the source they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from explorer import _decode, _images
from explorer import _taking as taking
from explorer._limits import Limits
from explorer._resize import Fit, collect
from explorer._typing import Float, Int, UInt8
from explorer.errors import ClipError

if TYPE_CHECKING:
    from explorer.data.scene import Scene

__all__ = [
    "Clip",
    "Fit",
    "Limits",
    "VideoInfo",
    "clip_from_frames",
    "inspect_video",
    "load_clip",
]


@dataclass(frozen=True)
class Clip:
    """Frames of one video, ready for a backbone.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, upright.
        timestamps: (T,) seconds after the first frame of the source.
        content_hash: sha256 of the source's bytes and of the sampling, never of the path.
        name: for people.
        source_hash: sha256 of the file's bytes alone (for images: of all images in order).
        source_frames: (T,) position of each frame in the source.
        source_size: (height, width) of the upright source frames.
        crop: (y0, x0, height, width) of the part of a source frame that `frames` shows, in pixels.
        fit: how that part was chosen: "crop", the largest of the frames' shape, or "stretch", all
            of the source frame, whose sides then shrink by different factors.
        scene: the dataset's scene that the frames are from, which may know their geometry; None
            for a video that came alone.
    """

    frames: UInt8[np.ndarray, "T H W 3"]
    timestamps: Float[np.ndarray, " T"]
    content_hash: str
    name: str
    source_hash: str
    source_frames: Int[np.ndarray, " T"]
    source_size: tuple[int, int]
    crop: tuple[int, int, int, int]
    fit: Fit = "crop"
    scene: Scene | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames."""
        return self.frames.shape[1], self.frames.shape[2]

    def to_source(self, x: float, y: float) -> tuple[float, float]:
        """Where a point (x, y) of the frames lies in a source frame, both in pixels."""
        top, left, height, width = self.crop
        return left + x * width / self.size[1], top + y * height / self.size[0]

    def from_source(self, x: float, y: float) -> tuple[float, float]:
        """Where a point (x, y) of a source frame lies in the frames; outside of them if cropped."""
        top, left, height, width = self.crop
        return (x - left) * self.size[1] / width, (y - top) * self.size[0] / height


@dataclass(frozen=True)
class VideoInfo:
    """What a page must know to let a person place the window.

    Attributes:
        frames: number of frames.
        fps: frames per second (30 for a folder of images).
        seconds: from the start of the first to the end of the last frame.
        size: (height, width) of an upright frame.
    """

    frames: int
    fps: float
    seconds: float
    size: tuple[int, int]


def inspect_video(path: str | Path, *, limits: Limits | None = None) -> VideoInfo:
    """Count, time and measure a video or a folder of images; decodes one frame only.

    Raises:
        ClipError: the input is missing, broken or over a limit; the message says what to do.
    """
    limits = limits or Limits()
    path = _existing(path)
    if path.is_dir():
        folder = _images.read_folder(path, limits)
        height, width = _images.read_image(folder.paths[0]).shape[:2]
        count = len(folder.paths)
        return VideoInfo(count, _images.FPS, count / _images.FPS, (height, width))
    _check_file(path, limits)
    index = _decode.read_index(path, limits)
    first = next(_decode.decode(path, index, [0], limits))
    count = len(index.pts)
    seconds = float(index.seconds([count - 1])[0]) + 1.0 / index.fps
    return VideoInfo(count, index.fps, seconds, (first.rgb.shape[0], first.rgb.shape[1]))


def load_clip(
    path: str | Path,
    *,
    start: int = 0,
    stride: int = 1,
    count: int | None = 17,
    size: tuple[int, int] | None = (144, 256),
    fit: Fit = "crop",
    limits: Limits | None = None,
) -> Clip:
    """Decode a window of an mp4 or mov file, or of a folder of png or jpg images.

    Args:
        path: the file or folder.
        start: first frame of the window.
        stride: distance between the frames taken, in source frames.
        count: frames taken; None takes all up to the end.
        size: (height, width) of the frames, by area averaging where they shrink. None keeps the
            source's pixels.
        fit: "crop" takes the largest centred part of that shape, "stretch" the whole frame; a
            backbone's card says which one it is shown.
        limits: bounds that are checked before anything is decoded.

    Raises:
        ClipError: the input is missing, broken, over a limit or too short for the window; the
            message says what is wrong and what to do.
    """
    limits = limits or Limits()
    path = _existing(path)
    taking.check_window(start, stride, count, size)
    pictures: Iterable[_decode.Picture]
    if path.is_dir():
        folder = _images.read_folder(path, limits)
        taken = taking.window(path.name, len(folder.paths), start, stride, count, limits)
        source_hash = folder.source_hash
        timestamps = np.asarray(taken, dtype=np.float64) / _images.FPS
        pictures = (_decode.Picture(_images.read_image(folder.paths[i]), 1.0) for i in taken)
    else:
        _check_file(path, limits)
        index = _decode.read_index(path, limits)
        taken = taking.window(path.name, len(index.pts), start, stride, count, limits)
        source_hash = _file_hash(path)
        timestamps = index.seconds(taken)
        pictures = _decode.decode(path, index, taken, limits)
    frames, source_size, crop = collect(path.name, pictures, len(taken), size, limits, fit=fit)
    return Clip(
        frames=frames,
        timestamps=timestamps,
        content_hash=taking.content_hash(source_hash, taken, size, fit),
        name=path.name,
        source_hash=source_hash,
        source_frames=np.asarray(taken, dtype=np.int64),
        source_size=source_size,
        crop=crop,
        fit=fit,
    )


def clip_from_frames(frames: UInt8[np.ndarray, "T H W 3"], *, name: str, fps: float = 30.0) -> Clip:
    """A clip made of an array of (T, H, W, 3) uint8 RGB frames, hashed by its pixels.

    Raises:
        ClipError: wrong shape or dtype, no frames, or a frame rate that is not positive.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or frames.size == 0:
        raise ClipError(
            f"frames must be a non-empty uint8 array (T, H, W, 3); got {frames.dtype} "
            f"{frames.shape}"
        )
    if not fps > 0:
        raise ClipError(f"fps is {fps}: give a positive number of frames per second")
    owned = np.array(frames, order="C")
    count, height, width = owned.shape[:3]
    digest = hashlib.sha256(str(owned.shape).encode())
    digest.update(owned.data)
    source_hash = digest.hexdigest()
    return Clip(
        frames=owned,
        timestamps=np.arange(count) / fps,
        content_hash=taking.content_hash(source_hash, range(count), None),
        name=name,
        source_hash=source_hash,
        source_frames=np.arange(count, dtype=np.int64),
        source_size=(height, width),
        crop=(0, 0, height, width),
    )


def _existing(path: str | Path) -> Path:
    path = Path(path)
    try:
        if path.is_dir() or path.is_file():
            return path
        exists = path.exists()
    except (OSError, ValueError) as error:
        raise ClipError(f"{path.name!r} is not a usable path ({error})") from error
    if exists:
        raise ClipError(f"{path.name} is neither a file nor a folder: choose a video file")
    raise ClipError(f"{path} does not exist: check the path")


def _check_file(path: Path, limits: Limits) -> None:
    count = path.stat().st_size
    if count == 0:
        raise ClipError(f"{path.name} is empty (0 bytes): copy or upload it again")
    if path.suffix.lower() not in _decode.VIDEO_SUFFIXES:
        raise ClipError(
            f"{path.name} is not an mp4 or mov file: convert it to mp4 (H.264), or give a folder "
            "of png or jpg images"
        )
    limits.check_bytes(path.name, count)
    try:
        path.open("rb").close()
    except OSError as error:
        raise ClipError(
            f"{path.name} cannot be read ({error.strerror}): copy it to where you may read it"
        ) from error


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
