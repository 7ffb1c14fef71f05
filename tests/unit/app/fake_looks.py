"""Looks that do what a test wants, without a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from app.handlers import Handlers
from app.state import Session
from explorer.backbones.base import slot_map
from explorer.camera import Cameras
from explorer.clip import Clip, clip_from_frames
from explorer.features import Features
from explorer.look import Decoded, FeaturesReady, Finished, Stage
from explorer.reconstruction import Reconstruction

BACKBONE = "rgb"


def clip(seed: int = 0) -> Clip:
    frames = np.random.default_rng(seed).integers(0, 255, (5, 18, 32, 3)).astype(np.uint8)
    return clip_from_frames(frames, name="clip.mp4")


def features() -> Features:
    frame_to_slot, slot_frames = slot_map(5, 4)
    values = np.random.default_rng(1).normal(size=(2, 2, 4, 3)).astype(np.float16)
    return Features(values, frame_to_slot, slot_frames, BACKBONE, "0", 0, 0.0, 0.0, 999, 0)


def estimate() -> Reconstruction:
    """One frame of a wall, by somebody who may be wrong."""
    depth = np.ones((1, 18, 32), np.float32)
    lens = np.array([[[20.0, 0, 16], [0, 20, 9], [0, 0, 1]]])
    cameras = Cameras(np.eye(3, 4)[None], lens, (18, 32))
    points = np.ones((1, 18, 32, 3), np.float32)
    return Reconstruction(np.array([0]), depth, points, depth, cameras, "toy-vggt", {})


def stages(shown: Clip) -> Iterator[Stage]:
    yield Decoded(seconds=0.1, clip=shown)
    yield FeaturesReady(seconds=0.2, features=features(), cached=False)
    yield Finished(seconds=0.3, summary={"point_error": None})


def run(page: Handlers, session: Session) -> Iterator[dict[str, Any]]:
    return page.running.run(session, 0, 1, 5, BACKBONE, 0, 0.0, "exact")
