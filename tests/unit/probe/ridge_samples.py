"""Features and geometry that ridge readouts are tested on."""

from __future__ import annotations

import numpy as np

from explorer.backbones.base import slot_map
from explorer.camera import Cameras, unproject
from explorer.features import Features
from explorer.probe.ridge import (
    Ridge,
    RidgeData,
    TokenMaps,
    fit_ridge,
)
from explorer.reconstruction import Reconstruction

FRAMES = 5
GRID = (4, 6)
SLOT_FRAMES = slot_map(FRAMES, 4)[1]
SHAPE = (len(SLOT_FRAMES), *GRID)
HASH = "b" * 64
WIDE = 12
MAP = np.random.default_rng(5).normal(scale=0.3, size=(WIDE, 4))
OFFSET = np.array([0.2, -0.1, 0.4, 1.5])


def features(values: np.ndarray, *, weights: str = HASH, layer: int = 5, sigma: float = 0.3):
    frame_to_slot, slot_frames = slot_map(FRAMES, 4)
    return Features(
        values.astype(np.float16),
        frame_to_slot,
        slot_frames,
        "made-up",
        weights,
        layer,
        sigma,
        300.0,
        0,
        0,
    )


def maps(answers: np.ndarray, valid: np.ndarray | None = None) -> TokenMaps:
    """Targets out of (S, h, w, 4) log-depth and points."""
    valid = np.ones(answers.shape[:3], dtype=bool) if valid is None else valid
    depth = np.where(valid, np.exp(answers[..., 0]), 0.0)
    return TokenMaps(SLOT_FRAMES, depth, answers[..., 1:], valid)


def linear_clip(seed: int, *, noise: float = 0.0) -> tuple[Features, TokenMaps]:
    """A clip whose geometry is a linear map of its features."""
    rng = np.random.default_rng(seed)
    seen = features(rng.normal(size=(*SHAPE, WIDE)) * np.arange(1, WIDE + 1) / WIDE)
    answers = seen.values.astype(np.float64) @ MAP + OFFSET
    return seen, maps(answers + noise * rng.normal(size=answers.shape))


def unrelated_clip(seed: int, *, wide: int = WIDE) -> tuple[Features, TokenMaps]:
    """A clip whose features say nothing about its geometry."""
    rng = np.random.default_rng(seed)
    return features(rng.normal(size=(*SHAPE, wide))), maps(rng.normal(size=(*SHAPE, 4)))


def data(clips: list[tuple[Features, TokenMaps]], *, position: int | None = None) -> RidgeData:
    found = RidgeData(position_frames=position)
    for seen, target in clips:
        found.add(seen, target)
    return found


def fitted(noise: float = 0.05) -> Ridge:
    return fit_ridge(
        data([linear_clip(seed, noise=noise) for seed in range(4)]),
        data([linear_clip(seed, noise=noise) for seed in range(10, 12)]),
    )


def room(size: tuple[int, int], unit: float = 1.0) -> Reconstruction:
    """A slanted wall seen by a camera that steps aside; the top row is sky."""
    height, width = size
    focal = 0.9 * width
    matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    pose = np.tile(np.eye(3, 4), (FRAMES, 1, 1))
    pose[:, 0, 3] = -0.2 * unit * np.arange(FRAMES)
    cameras = Cameras(pose, np.tile(matrix, (FRAMES, 1, 1)), size)
    slant = np.linspace(2.0, 4.0, width)[None, None, :] + 0.1 * np.arange(FRAMES)[:, None, None]
    depth = np.tile(slant * unit, (1, height, 1))
    depth[:, : height // GRID[0]] = 0.0
    return Reconstruction(
        np.arange(FRAMES),
        depth,
        unproject(depth, cameras),
        (depth > 0).astype(float),
        cameras,
        "room",
    )
