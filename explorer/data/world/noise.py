"""Lattice noise and box-filtered step functions, from which the textures are made.

Hashes are permutation polynomials modulo 289 in whole single-precision numbers below 2^24, which
every device computes exactly (Gustavson and McEwan, "Efficient computational noise in GLSL", 2012).
"""

from __future__ import annotations

import torch
from torch import Tensor

_PERIOD = 289.0


def _modulo(x: Tensor) -> Tensor:
    # The half keeps whole multiples of the period away from the rounding of the product.
    return x - torch.floor((x + 0.5) * (1.0 / _PERIOD)) * _PERIOD


def _permute(x: Tensor) -> Tensor:
    return _modulo((34.0 * x + 1.0) * x)


def lattice_hash(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """Uniforms in [0, 1) for whole x, y and seed (floats of one shape, below 10,000)."""
    first = _permute(_modulo(x + seed))
    return _permute(_modulo(first + y + 2.0 * seed)) * (1.0 / _PERIOD)


def value_noise(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    """Smooth noise in [0, 1) with one lattice point a unit."""
    x, y = torch.floor(u), torch.floor(v)
    fx, fy = u - x, v - y
    fx, fy = fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy)
    left = _modulo(x + seed)
    row = y + 2.0 * seed
    start, end = _permute(left) + row, _permute(left + 1.0) + row
    top = torch.lerp(_permute(_modulo(start)), _permute(_modulo(end)), fx)
    bottom = torch.lerp(_permute(_modulo(start + 1.0)), _permute(_modulo(end + 1.0)), fx)
    return torch.lerp(top, bottom, fy) * (1.0 / _PERIOD)


def fraction(x: Tensor) -> Tensor:
    """x minus its floor."""
    return x - torch.floor(x)


def step(x: Tensor, width: Tensor) -> Tensor:
    """0 below zero, 1 above it, averaged over `width`."""
    return torch.clamp(x / width + 0.5, 0.0, 1.0)


def band(x: Tensor, duty: float, width: Tensor) -> Tensor:
    """1 where the fraction of x is below `duty`, else 0, averaged over `width` (a box filter)."""
    low, high = x - 0.5 * width, x + 0.5 * width
    floor_low, floor_high = torch.floor(low), torch.floor(high)
    area = (floor_high - floor_low) * duty
    area = area + torch.clamp(high - floor_high, max=duty) - torch.clamp(low - floor_low, max=duty)
    return area / width
