"""Lattice noise and box-filtered step functions, from which the textures are made.

Noise comes from one table of uniform numbers, repeated over the plane; surfaces take it from places
far apart. Looking numbers up is exact on every device, and shorter to compile than hashing.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

PERIOD = 128
_ROW = PERIOD + 1  # the first column and row are repeated at the end


@cache
def lattice(device: str) -> Tensor:
    """The table of uniforms in [0, 1), (129 * 129,) float32."""
    table = np.random.Generator(np.random.PCG64(0)).random((PERIOD, PERIOD), dtype=np.float32)
    return torch.from_numpy(np.pad(table, (0, 1), mode="wrap").ravel()).to(device)


def _place(column: Tensor, row: Tensor) -> Tensor:
    """Indices into the table of whole coordinates."""
    column = column - torch.floor(column * (1.0 / PERIOD)) * PERIOD
    row = row - torch.floor(row * (1.0 / PERIOD)) * PERIOD
    return (row * _ROW + column).to(torch.int64)


def lattice_value(table: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Uniforms in [0, 1) for whole coordinates (floats of one shape)."""
    return torch.take(table, _place(column, row))


def value_noise(table: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Smooth noise in [0, 1) with one lattice point a unit."""
    x, y = torch.floor(u), torch.floor(v)
    fx, fy = u - x, v - y
    fx, fy = fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy)
    place = _place(x, y)
    top = torch.lerp(torch.take(table, place), torch.take(table, place + 1), fx)
    below = place + _ROW
    bottom = torch.lerp(torch.take(table, below), torch.take(table, below + 1), fx)
    return torch.lerp(top, bottom, fy)


def fraction(x: Tensor) -> Tensor:
    """x minus its floor."""
    return x - torch.floor(x)


def step(x: Tensor, sharpness: Tensor) -> Tensor:
    """0 below zero, 1 above it, averaged over a width of 1 / `sharpness`."""
    return torch.clamp(x * sharpness + 0.5, 0.0, 1.0)


def band(x: Tensor, duty: float, width: Tensor) -> Tensor:
    """1 where the fraction of x is below `duty`, else 0, averaged over `width` (a box filter)."""
    half = 0.5 * width
    low, high = x - half, x + half
    floor_low, floor_high = torch.floor(low), torch.floor(high)
    area = (floor_high - floor_low) * duty
    area = area + torch.clamp(high - floor_high, max=duty) - torch.clamp(low - floor_low, max=duty)
    return area / width
