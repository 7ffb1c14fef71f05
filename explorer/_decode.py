"""Decoding of mp4 and mov files with PyAV: index all frames first, then decode only a window.

Files come from strangers. The container format is forced, so that a playlist renamed to .mp4 cannot
open other files; sizes are checked from the headers before anything is decoded; the numbers of
boxes and packets and the wall time are bounded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from explorer._limits import Limits
from explorer._typing import Float, Int, UInt8
from explorer.errors import ClipError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v")
MAX_PACKETS = 500_000
MAX_BOXES = 100_000
_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid", b"styp"}
# libswscale's default conversion darkens by one grey level and differs between processors; these
# flags (bicubic, full chroma in and out, accurate rounding, bit exact) do neither.
CONVERSION = 4 | 0x2000 | 0x4000 | 0x40000 | 0x80000
_IO_TIMEOUT = 20.0  # seconds for opening and for one read, e.g. on a stalled network drive

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoIndex:
    """Where the frames of a video are, from its packets alone.

    Attributes:
        pts: (N,) presentation times of all shown frames, ascending, in units of `time_base`.
        keyframes: (K,) those of them at which decoding can start.
        time_base: seconds per unit of `pts`.
        fps: frames per second.
    """

    pts: Int[np.ndarray, " N"]
    keyframes: Int[np.ndarray, " K"]
    time_base: Fraction
    fps: float

    def seconds(self, frames: Sequence[int]) -> Float[np.ndarray, " T"]:
        """(T,) float64 seconds of the given frames after the first frame of the video."""
        shifted = self.pts[np.asarray(frames, dtype=np.int64)] - self.pts[0]
        return np.asarray(shifted * float(self.time_base), dtype=np.float64)


def check_boxes(path: Path) -> None:
    """Walk the outermost boxes of an mp4 or mov file, which are all that says a file is whole.

    Raises:
        ClipError: not an mp4 or mov at all, cut off, without the index (`moov`), or of so many
            boxes that walking them would take minutes.
    """
    total = path.stat().st_size
    position = 0
    found: set[bytes] = set()
    count = 0
    with path.open("rb") as file:
        while position + 8 <= total:
            file.seek(position)
            header = file.read(16)
            size, name = int.from_bytes(header[:4], "big"), header[4:8]
            if not found and name not in _FIRST_BOXES:
                raise ClipError(
                    f"{path.name} is not a video: its content is not that of an mp4 or mov file; "
                    "choose another file, or convert it to mp4 (H.264)"
                )
            if size == 1:
                size = int.from_bytes(header[8:16], "big")
            elif size == 0:
                size = total - position
            if size < 8:
                break
            if position + size > total and name in (b"moov", b"mdat", b"moof"):
                raise ClipError(
                    f"{path.name} is cut off: {position + size - total} bytes are missing at its "
                    "end; copy or upload the file again"
                )
            count += 1
            if count > MAX_BOXES:
                raise ClipError(
                    f"{path.name} consists of more than {MAX_BOXES} parts: convert it to an mp4 "
                    "that is not fragmented (H.264)"
                )
            found.add(name)
            position += size
    if b"moov" not in found:
        raise ClipError(
            f"{path.name} is incomplete: its frame index is missing, as after an interrupted "
            "recording or copy; copy or export the file again"
        )


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first video stream; every failure of PyAV becomes a ClipError."""
    import av

    try:
        with av.open(
            str(path.absolute()), format="mov", metadata_errors="ignore", timeout=_IO_TIMEOUT
        ) as container:
            if not container.streams.video:
                raise ClipError(f"{path.name} holds no video, only sound: choose a video file")
            stream = container.streams.video[0]
            _check_header(path, container, stream, limits)
            stream.thread_type = "AUTO"
            stream.codec_context.options = {"max_pixels": str(limits.pixels)}
            yield container, stream
    except (av.FFmpegError, OSError, ValueError, UnicodeError, MemoryError) as error:
        raise ClipError(
            f"{path.name} cannot be decoded ({_reason(error)}): the file is damaged or uses an "
            "unsupported codec; convert it to mp4 (H.264)"
        ) from error


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)


def _check_header(
    path: Path, container: InputContainer, stream: VideoStream, limits: Limits
) -> None:
    context = stream.codec_context
    if context is None:
        raise ClipError(f"{path.name} uses an unknown codec; convert it to mp4 (H.264)")
    limits.check_pixels(path.name, context.height, context.width)
    seconds = 0.0
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        seconds = container.duration / 1e6
    limits.check_seconds(path.name, seconds)


def read_index(path: Path, limits: Limits) -> VideoIndex:
    """Count and time all frames by reading the packets, without decoding.

    Raises:
        ClipError: the file is broken, over a limit, or has no video frames.
    """
    check_boxes(path)
    shown: list[int] = []
    keys: list[int] = []
    with _opened(path, limits) as (container, stream):
        deadline = time.monotonic() + limits.wall_seconds
        for number, packet in enumerate(container.demux(stream)):
            if number >= MAX_PACKETS or time.monotonic() > deadline:
                raise ClipError(
                    f"{path.name} has too many frames to index ({number} so far): "
                    "cut it to a shorter video"
                )
            if packet.pts is None or packet.size == 0 or packet.is_discard:
                continue
            shown.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
        base = stream.time_base or Fraction(1, 1000)
        rate = stream.average_rate
    if not shown:
        raise ClipError(f"{path.name} has no frames: choose another video")
    pts = np.unique(np.asarray(shown, dtype=np.int64))
    seconds = float((int(pts[-1]) - int(pts[0])) * base)
    limits.check_seconds(path.name, seconds)
    fps = float(rate) if rate else (len(pts) - 1) / seconds if seconds > 0 else 1.0
    return VideoIndex(pts, np.unique(np.asarray(keys, dtype=np.int64)), base, fps)


@dataclass(frozen=True)
class Picture:
    """One decoded frame, upright: (H, W, 3) uint8 RGB, and the width of a pixel over its height."""

    rgb: UInt8[np.ndarray, "H W 3"]
    pixel_aspect: float


def decode(
    path: Path, index: VideoIndex, frames: Sequence[int], limits: Limits
) -> Iterator[Picture]:
    """Decode the wanted frames (ascending positions in `index.pts`), one at a time.

    Decoding starts at the key frame before the first wanted frame. Some files announce key frames
    at which decoding cannot start; then it starts from the beginning of the file.

    Raises:
        ClipError: a frame is damaged, missing or over a limit, or decoding takes too long.
    """
    wanted = [int(index.pts[frame]) for frame in frames]
    before = index.keyframes[index.keyframes <= wanted[0]]
    done = 0
    if len(before) and before[-1] > index.pts[0]:
        try:
            for picture in _decode_from(path, wanted, limits, int(before[-1])):
                done += 1
                yield picture
        except ClipError as error:
            log.info("%s: decoding from a key frame failed: %s", path.name, error)
    if done < len(wanted):
        yield from _decode_from(path, wanted[done:], limits, None)


def _decode_from(
    path: Path, wanted: Sequence[int], limits: Limits, seek_to: int | None
) -> Iterator[Picture]:
    position = 0
    deadline = time.monotonic() + limits.wall_seconds
    with _opened(path, limits) as (container, stream):
        if seek_to is not None:
            container.seek(seek_to, stream=stream, backward=True)
        for frame in container.decode(stream):
            if time.monotonic() > deadline:
                raise ClipError(
                    f"{path.name} takes longer than {limits.wall_seconds:.0f} s to decode: "
                    "choose an earlier window or a smaller video"
                )
            if frame.pts is None or frame.pts < wanted[position]:
                continue
            if frame.pts > wanted[position] or frame.is_corrupt:
                break
            limits.check_pixels(path.name, frame.height, frame.width)
            yield _upright(frame, float(stream.sample_aspect_ratio or 1))
            position += 1
            if position == len(wanted):
                return
    raise ClipError(
        f"{path.name} is damaged: {len(wanted) - position} of the chosen frames cannot be decoded; "
        "choose another window, or copy or export the file again"
    )


def _upright(frame: VideoFrame, aspect: float) -> Picture:
    converted = frame.reformat(format="rgb24", interpolation=CONVERSION)
    rgb = np.asarray(converted.to_ndarray(), dtype=np.uint8)
    turns = round(frame.rotation / 90) % 4
    if turns:
        # FFmpeg states by how much the stored picture must be turned counter-clockwise.
        rgb = np.ascontiguousarray(np.rot90(rgb, turns))
    return Picture(rgb, 1.0 / aspect if turns % 2 else aspect)
