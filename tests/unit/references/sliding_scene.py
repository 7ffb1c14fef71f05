"""A small scene whose geometry is known: a box before a wall, seen by a camera that slides."""

from __future__ import annotations

import numpy as np

from explorer.camera import Cameras, unproject
from explorer.reconstruction import Reconstruction

SIZE = (48, 80)
FRAMES = 6
BOX = (slice(18, 30), slice(30, 46))
"""Where a box at depth 2 stands before a wall at depth 4, in the first frame."""


def sliding(*, moving: bool = False, shift: float = 0.05, sky: int = 0) -> Reconstruction:
    """A camera slides right before a wall with a box; a moving box keeps its place in the picture.

    The box stands far enough before the wall that what it hides is hidden, not off.
    """
    height, width = SIZE
    focal = 60.0
    matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    pose = np.tile(np.eye(3, 4), (FRAMES, 1, 1))
    pose[:, 0, 3] = -shift * np.arange(FRAMES)
    depth = np.full((FRAMES, height, width), 4.0, dtype=np.float32)
    for frame in range(FRAMES):
        gone = 0 if moving else round(focal * shift * frame / 2)
        depth[frame, BOX[0], BOX[1].start - gone : BOX[1].stop - gone] = 2.0
    depth[:, :sky] = 0.0
    cameras = Cameras(pose, np.tile(matrix, (FRAMES, 1, 1)), SIZE)
    return Reconstruction(
        frames=np.arange(FRAMES),
        depth=depth,
        points=unproject(depth, cameras),
        confidence=(depth > 0).astype(np.float32),
        cameras=cameras,
        source="sliding",
    ).normalized()
