"""What the controls show a probe without any model: where a token is, and the pixels under it."""

from __future__ import annotations

import numpy as np

from explorer._typing import Float, Int, UInt8

OCTAVES = 6
CHANNELS = 3 * 2 * OCTAVES


def position_channels(
    slot_frames: Int[np.ndarray, " S"], grid: tuple[int, int], *, max_frames: int
) -> Float[np.ndarray, "S h w C"]:
    """Sines and cosines of time, row and column at octaves of half a turn over their range.

    Rows and columns are token centres as fractions of the image; time is the slot's frame as a
    fraction of the longest clip. Channels: time, row, column; of each the sines, then the cosines.
    """
    height, width = grid
    time = np.asarray(slot_frames) / max(max_frames - 1, 1)
    axes = np.meshgrid(
        time, (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij"
    )
    octaves = np.pi * 2.0 ** np.arange(OCTAVES)
    angles = [axis[..., None] * octaves for axis in axes]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=-1).astype(np.float32)


def pixel_patches(
    frames: UInt8[np.ndarray, "S H W 3"], grid: tuple[int, int]
) -> UInt8[np.ndarray, "S h w C"]:
    """The pixels under each token of the grid, channels in the order row, column, colour."""
    height, width = grid
    slots = len(frames)
    split = frames.reshape(
        slots, height, frames.shape[1] // height, width, frames.shape[2] // width, 3
    )
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(slots, height, width, -1)
