"""Procedural textures on a surface's own coordinates.

Every pattern is a weight between two or three colours, broken up by value noise so that no two
places of a surface look quite alike. Lattice hashes are integer arithmetic and so the same on every
device.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def lattice_hash(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """Uniforms in [0, 1) for integer lattice points (int64 tensors of one shape)."""
    h = (x * 374761393 + y * 668265263 + seed * 2246822519) & _MASK
    h = ((h ^ (h >> 13)) * 1274126177) & _MASK
    h = ((h ^ (h >> 16)) * 2654435769) & _MASK
    return ((h >> 8) & 0xFFFF).to(torch.float32) / 65536.0


def value_noise(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    """Smooth noise in [0, 1) with one lattice point a unit."""
    x, y = torch.floor(u), torch.floor(v)
    fx, fy = u - x, v - y
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    ix, iy = x.to(torch.int64), y.to(torch.int64)
    top = torch.lerp(lattice_hash(ix, iy, seed), lattice_hash(ix + 1, iy, seed), fx)
    bottom = torch.lerp(lattice_hash(ix, iy + 1, seed), lattice_hash(ix + 1, iy + 1, seed), fx)
    return torch.lerp(top, bottom, fy)


def _band(x: Tensor, duty: float) -> Tensor:
    """1 where the fraction of x is below `duty`, else 0."""
    return ((x - torch.floor(x)) < duty).to(x.dtype)


def pattern(u: Tensor, v: Tensor, kind: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """(weight of the second colour, weight of the third colour) of a texture at cell coordinates.

    Args:
        u: first cell coordinate; a cell of the pattern is one unit.
        v: second cell coordinate.
        kind: 0 plaster, 1 checker, 2 stripes, 3 bricks, 4 dots, 5 tiles, 6 wood, 7 marble,
            8 patchwork, 9 zigzag, 10 diamonds.
        seed: integer seed of the surface.
    """
    cu, cv = torch.floor(u), torch.floor(v)
    iu, iv = cu.to(torch.int64), cv.to(torch.int64)
    fu, fv = u - cu, v - cv
    cell = lattice_hash(iu, iv, seed + 11)
    coarse = value_noise(u * 0.9, v * 0.9, seed + 23)
    row_shift = 0.5 * (cv - 2 * torch.floor(cv / 2))
    brick_u = u * 0.5 + row_shift
    mortar = torch.maximum(_band(brick_u, 0.06), _band(v, 0.12))
    brick_cell = lattice_hash(torch.floor(brick_u).to(torch.int64), iv, seed + 31)
    radius = torch.sqrt((fu - 0.5) ** 2 + (fv - 0.5) ** 2)
    parity = cu + cv - 2 * torch.floor((cu + cv) / 2)
    rings = torch.sqrt(u * u * 0.15 + v * v) * 1.6 + 2.0 * coarse
    zigzag = v + torch.abs(fu - 0.5)
    choices = [
        (coarse, torch.zeros_like(u)),
        (parity, torch.zeros_like(u)),
        (_band(u, 0.5), 0.7 * _band(u * 0.5, 0.2)),
        (mortar, 0.8 * brick_cell * (1 - mortar)),
        ((radius < 0.15 + 0.25 * cell).to(u.dtype), torch.zeros_like(u)),
        (torch.maximum(_band(u, 0.07), _band(v, 0.07)), 0.8 * cell),
        (0.5 + 0.5 * torch.sin(6.2832 * rings), torch.zeros_like(u)),
        (0.5 + 0.5 * torch.sin(4.0 * u + 7.0 * coarse), 0.3 * coarse),
        ((cell < 0.4).to(u.dtype), (cell > 0.75).to(u.dtype)),
        (_band(zigzag, 0.5), torch.zeros_like(u)),
        ((torch.abs(fu - 0.5) + torch.abs(fv - 0.5) < 0.42).to(u.dtype), 0.6 * cell),
    ]
    second, third = choices[0]
    for index in range(1, len(choices)):
        chosen = kind == index
        second = torch.where(chosen, choices[index][0], second)
        third = torch.where(chosen, choices[index][1], third)
    return second, third


def albedo(u: Tensor, v: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """Three colour channels in [0, 1] of the textures at surface coordinates u, v (in units).

    Args:
        u: first surface coordinate, any shape.
        v: second surface coordinate, of u's shape.
        parameters: the 16 texture parameters of `Scenes.texture`, each of u's shape.
    """
    scale, cosine, sine = parameters[10], parameters[11], parameters[12]
    cell_u = (cosine * u + sine * v) * scale + parameters[13]
    cell_v = (cosine * v - sine * u) * scale + parameters[14]
    seed = parameters[15].to(torch.int64)
    second, third = pattern(cell_u, cell_v, parameters[0].to(torch.int64), seed)
    grain = value_noise(cell_u * 2.3, cell_v * 2.3, seed + 47)
    blotch = value_noise(cell_u * 0.45, cell_v * 0.45, seed + 59)
    brightness = 0.80 + 0.14 * grain + 0.24 * blotch
    channels = []
    for channel in range(3):
        base = torch.lerp(parameters[1 + channel], parameters[4 + channel], second)
        channels.append(torch.lerp(base, parameters[7 + channel], third) * brightness)
    return channels
