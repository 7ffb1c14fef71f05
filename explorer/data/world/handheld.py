"""The shake of a camera in a hand: smooth band-limited noise on rotation and translation."""

from __future__ import annotations

import numpy as np

from explorer._typing import Float
from explorer.data.world.draws import Draws

LARGEST_SHIFT = 0.06  # units
_WAVES = 3  # for each of six degrees of freedom
_SLOWEST, _FASTEST = 0.7, 4.0  # cycles in a clip; 17 frames could carry 8
_DEGREES = (0.3, 1.4)  # largest turn about each axis


def sample_shake(
    draws: Draws, frames: int, fraction: float
) -> tuple[Float[np.ndarray, "B T 3 3"], Float[np.ndarray, "B T 3"]]:
    """(turns of the camera, shifts in the world) of a batch; none for steady cameras.

    Args:
        draws: of B scenes.
        frames: T.
        fraction: of cameras that are held in a hand.
    """
    held = draws.one() < fraction
    strength = draws.one()
    raw = draws.many(6 * _WAVES * 3).reshape(draws.count, 6, _WAVES, 3)
    cycles = _SLOWEST + (_FASTEST - _SLOWEST) * raw[..., 0]
    weight = (0.3 + raw[..., 1]) / np.sqrt(cycles)  # slow waves are larger
    weight = weight / weight.sum(axis=2, keepdims=True)
    time = np.linspace(0.0, 1.0, frames)
    waves = np.sin(2 * np.pi * (cycles[..., None] * time + raw[..., 2, None]))
    signal = np.einsum("bdw,bdwt->btd", weight, waves)  # within [-1, 1]
    low, high = _DEGREES
    largest = np.deg2rad(low + (high - low) * strength)[:, None, None] * held[:, None, None]
    shift = signal[:, :, 3:] * (0.3 + 0.7 * strength)[:, None, None] * held[:, None, None]
    return _rotation(signal[:, :, :3] * largest), LARGEST_SHIFT / 3**0.5 * shift


def _rotation(vector: Float[np.ndarray, "B T 3"]) -> Float[np.ndarray, "B T 3 3"]:
    """Rodrigues' rotation about each vector by its length."""
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    half = np.sinc(angle / (2 * np.pi))
    return np.asarray(np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * half**2 * cross @ cross)
