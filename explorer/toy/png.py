"""Pictures as PNG files where there is no image library (RFC 2083: 8-bit RGB, filter "sub")."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from explorer._typing import UInt8


def png(picture: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """The content of a PNG file."""
    height, width, _ = picture.shape
    lines = picture.copy()
    lines[:, 1:] -= picture[:, :-1]  # differences to the left neighbour, modulo 256
    rows = np.concatenate([np.ones((height, 1), np.uint8), lines.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, content)
        for kind, content in (
            (b"IHDR", header),
            (b"IDAT", zlib.compress(rows.tobytes(), 9)),
            (b"IEND", b""),
        )
    )


def sheet(
    videos: UInt8[np.ndarray, "N T H W 3"], frames: list[int], *, shrink: int = 1, gap: int = 4
) -> UInt8[np.ndarray, "R C 3"]:
    """Some frames of videos as one picture: a row for each video, on white.

    Args:
        videos: N videos of T frames.
        frames: the columns.
        shrink: pixels along each axis that are averaged into one.
        gap: pixels between pictures.
    """
    chosen = videos[:, frames].astype(np.float32)
    count, columns, height, width, _ = chosen.shape
    small = chosen[:, :, : height // shrink * shrink, : width // shrink * shrink]
    small = small.reshape(count, columns, height // shrink, shrink, width // shrink, shrink, 3)
    cells = np.rint(small.mean(axis=(3, 5))).astype(np.uint8)
    padded = np.pad(
        cells, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=np.uint8(255)
    )
    rows = padded.transpose(0, 2, 1, 3, 4).reshape(count * padded.shape[2], -1, 3)
    return np.ascontiguousarray(rows[:-gap, :-gap] if gap else rows)


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
