"""Writing frames as a small, exact mp4."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from explorer._atomic import replacing
from explorer._decode import CONVERSION
from explorer._typing import UInt8
from explorer.errors import ClipError


def save_mp4(
    frames: UInt8[np.ndarray, "T H W 3"], path: str | Path, *, fps: float = 30.0, crf: int = 12
) -> None:
    """Write RGB frames as H.264 (yuv420p), whole or not at all.

    Args:
        frames: (T, H, W, 3) uint8 RGB; H and W even, as yuv420p needs.
        path: the mp4 file; replaced only when the new one is complete.
        fps: frames per second.
        crf: constant rate factor of x264; 12 is visually lossless.

    Raises:
        ClipError: frames of a wrong shape or dtype, or of odd height or width.
    """
    import av

    path = Path(path)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ClipError(
            f"frames must be a non-empty uint8 array (T, H, W, 3); got {frames.dtype} "
            f"{frames.shape}"
        )
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ClipError(f"frames of {width}x{height} cannot be mp4: crop to even height and width")
    with (
        replacing(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        rate = Fraction(fps).limit_denominator(1001)
        # One thread: x264 distributes bits by thread, and the same frames should give the same
        # file everywhere.
        options = {"crf": str(crf), "preset": "slow", "threads": "1"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            planar = frame.reformat(format="yuv420p", interpolation=CONVERSION)
            container.mux(stream.encode(planar))
        container.mux(stream.encode(None))
