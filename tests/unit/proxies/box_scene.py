"""A box seen from inside by a moving camera, and features that encode it perfectly or not at all.

The surfaces are traced by hand, so that geometry has no part in what is tested.
"""

from __future__ import annotations

import numpy as np

from explorer.backbones.base import slot_map
from explorer.camera import Cameras, pixel_centers, unproject
from explorer.features import Features
from explorer.reconstruction import Reconstruction

FRAMES = 9
GRID = (18, 32)
SIZE = (144, 256)
LOW, HIGH = np.array([-3.0, -1.5, -2.0]), np.array([2.5, 1.0, 6.0])
SLOT_FRAMES = slot_map(FRAMES, 4)[1]


def cameras(size: tuple[int, int], *, step: float = 0.12, turn: float = 0.02) -> Cameras:
    """Nine cameras that move to the right and a little ahead, and nod: along no epipolar line."""
    height, width = size
    focal = 0.8 * width
    matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    poses = []
    for frame in range(FRAMES):
        angle = -turn * frame
        c, s = np.cos(angle), np.sin(angle)
        rotation = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
        center = step * frame * np.array([1.0, 0.1, 0.5])
        poses.append(np.concatenate([rotation, -(rotation @ center)[:, None]], axis=1))
    return Cameras(np.stack(poses), np.tile(matrix, (FRAMES, 1, 1)), size)


def box(size: tuple[int, int], *, step: float = 0.12, turn: float = 0.02) -> Reconstruction:
    """The box at the pixel centres of a size, in units of its own."""
    seen = cameras(size, step=step, turn=turn)
    pixels = pixel_centers(*size)
    ones = np.ones((*size, 1))
    depth = np.empty((FRAMES, *size))
    for frame in range(FRAMES):
        inverse = np.linalg.inv(seen.intrinsics[frame])
        rays = np.concatenate([pixels, ones], axis=-1) @ inverse.T
        rays = rays @ seen.cam_from_world[frame, :, :3]
        # From inside, a ray leaves the box by the nearest of the planes that it runs towards.
        with np.errstate(divide="ignore"):
            reach = (np.where(rays > 0, HIGH, LOW) - seen.centers[frame]) / rays
        depth[frame] = reach.min(axis=-1)  # rays have z 1 in the camera: lengths are z-depths
    return Reconstruction(
        frames=np.arange(FRAMES),
        depth=depth,
        points=unproject(depth, seen),
        confidence=np.ones(depth.shape),
        cameras=seen,
        source="box",
    )


def as_features(values: np.ndarray, *, layer: int = 5, weights: str = "a" * 64) -> Features:
    """Features of the box's slots."""
    return Features(
        values=values.astype(np.float16),
        frame_to_slot=slot_map(FRAMES, 4)[0],
        slot_frames=SLOT_FRAMES,
        backbone="made-up",
        backbone_hash=weights,
        layer=layer,
        sigma=0.3,
        timestep=300.0,
        official_index=0,
        seed=0,
    )


def perfect(scene: Reconstruction) -> Features:
    """Tokens that are alike exactly where their surface points are near each other.

    Random Fourier features: their cosine similarity is a Gaussian of the distance in space.
    """
    points = scene.points[SLOT_FRAMES]
    rng = np.random.default_rng(0)
    waves = points @ rng.normal(scale=1.5, size=(3, 512))
    return as_features(np.concatenate([np.sin(waves), np.cos(waves)], axis=-1))


def noise(seed: int = 0) -> Features:
    """Tokens that have nothing to do with anything."""
    rng = np.random.default_rng(seed)
    return as_features(rng.normal(size=(len(SLOT_FRAMES), *GRID, 64)))


def place_only() -> Features:
    """Tokens that know where they are in the image and nothing else."""
    rng = np.random.default_rng(1)
    return as_features(np.tile(rng.normal(size=(1, *GRID, 64)), (len(SLOT_FRAMES), 1, 1, 1)))
