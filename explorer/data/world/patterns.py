"""The textures that models train on, each a weight between two or three colours.

A pattern takes `Cells` and returns (weight of the second colour, weight of the third colour). Edges
are averaged over the pixel's footprint, so that no detail is finer than the pixel grid.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from explorer.data.world.noise import band, fraction, lattice_hash, step, value_noise

_TURN = 6.2832

Weights = tuple[Tensor, Tensor]


class Cells(NamedTuple):
    """Where hit points lie in the lattice of their texture; tensors of one shape.

    Attributes:
        u, v: coordinates; a cell of the pattern is one unit.
        width: of the pixel, in cells.
        seed: whole number of the surface.
        row, column: whole parts of v and u; fu, fv: the fractions.
        cell: a uniform number for each cell.
        coarse: smooth noise, about one blob a cell.
    """

    u: Tensor
    v: Tensor
    width: Tensor
    seed: Tensor
    column: Tensor
    row: Tensor
    fu: Tensor
    fv: Tensor
    cell: Tensor
    coarse: Tensor

    @classmethod
    def at(cls, u: Tensor, v: Tensor, width: Tensor, seed: Tensor) -> Cells:
        """Cells at lattice coordinates."""
        column, row = torch.floor(u), torch.floor(v)
        cell = lattice_hash(column, row, seed + 11.0)
        coarse = value_noise(u * 0.9, v * 0.9, seed + 23.0)
        return cls(u, v, width, seed, column, row, u - column, v - row, cell, coarse)

    def centered(self) -> tuple[Tensor, Tensor]:
        """Distances from the middle of the cell along u and v."""
        return torch.abs(self.fu - 0.5), torch.abs(self.fv - 0.5)


def plaster(c: Cells) -> Weights:
    """Blotches of two sizes."""
    fine = value_noise(c.u * 2.1, c.v * 2.1, c.seed + 61.0)
    weight = torch.clamp((0.6 * c.coarse + 0.4 * fine - 0.5) * 3.0 + 0.5, 0.0, 1.0)
    return weight, torch.zeros_like(weight)


def checker(c: Cells) -> Weights:
    """A chessboard."""
    a, b = band(c.u * 0.5, 0.5, c.width * 0.5), band(c.v * 0.5, 0.5, c.width * 0.5)
    return a + b - 2.0 * a * b, torch.zeros_like(a)


def stripes(c: Cells) -> Weights:
    """Two kinds of stripes."""
    return band(c.u, 0.5, c.width), 0.7 * band(c.u * 0.5, 0.2, c.width * 0.5)


def bricks(c: Cells) -> Weights:
    """Running bond, every brick in its own shade."""
    along = c.u * 0.5 + 0.5 * (c.row - 2.0 * torch.floor(c.row * 0.5))
    mortar = torch.maximum(band(along, 0.06, c.width * 0.5), band(c.v, 0.12, c.width))
    shade = lattice_hash(torch.floor(along), c.row, c.seed + 31.0)
    return mortar, 0.8 * shade * (1.0 - mortar)


def dots(c: Cells) -> Weights:
    """Discs of many sizes."""
    radius = torch.hypot(c.fu - 0.5, c.fv - 0.5)
    return step(0.15 + 0.25 * c.cell - radius, c.width), torch.zeros_like(radius)


def tiles(c: Cells) -> Weights:
    """Square tiles with joints, every tile in its own shade."""
    return torch.maximum(band(c.u, 0.07, c.width), band(c.v, 0.07, c.width)), 0.8 * c.cell


def wood(c: Cells) -> Weights:
    """Year rings."""
    rings = torch.sqrt(c.u * c.u * 0.15 + c.v * c.v) * 1.6 + 2.0 * c.coarse
    return 0.5 + 0.5 * torch.sin(_TURN * rings), torch.zeros_like(rings)


def marble(c: Cells) -> Weights:
    """Veins bent by noise."""
    return 0.5 + 0.5 * torch.sin(4.0 * c.u + 7.0 * c.coarse), 0.3 * c.coarse


def patchwork(c: Cells) -> Weights:
    """Squares of three colours."""
    return (c.cell < 0.4).to(c.u.dtype), (c.cell > 0.75).to(c.u.dtype)


def zigzag(c: Cells) -> Weights:
    """Chevrons."""
    return band(c.v + torch.abs(c.fu - 0.5), 0.5, c.width * 1.4), torch.zeros_like(c.u)


def diamonds(c: Cells) -> Weights:
    """Squares on their corners, on squares of many shades."""
    du, dv = c.centered()
    return step(0.42 - du - dv, c.width * 1.4), 0.6 * c.cell


def planks(c: Cells) -> Weights:
    """Long boards with a grain."""
    along = c.u * 0.35 + lattice_hash(c.row, torch.zeros_like(c.row), c.seed + 5.0)
    joints = torch.maximum(band(c.v, 0.06, c.width), band(along, 0.03, c.width * 0.35))
    shade = lattice_hash(torch.floor(along), c.row, c.seed + 37.0)
    grain = value_noise(c.u * 1.2, c.v * 5.0, c.seed + 83.0)
    return torch.maximum(joints, 0.4 * grain), 0.7 * shade * (1.0 - joints)


def glyphs(c: Cells) -> Weights:
    """Lines of made-up letters, four by five dots each and symmetric, with spaces between words."""
    column, row = torch.floor(c.fu * 5.0), torch.floor(c.fv * 6.0)
    mirrored = torch.minimum(column, 3.0 - column)
    ink = lattice_hash(c.column * 5.0 + mirrored, c.row * 6.0 + row, c.seed + 91.0) > 0.42
    letter = (column < 4.0) & (row < 5.0) & (c.cell > 0.16)
    return (ink & letter).to(c.u.dtype), torch.zeros_like(c.u)


def plaid(c: Cells) -> Weights:
    """A tartan: broad bands that mix where they cross, and thin lines."""
    broad = 0.5 * (band(c.u, 0.4, c.width) + band(c.v, 0.4, c.width))
    thin = torch.maximum(band(c.u + 0.3, 0.09, c.width), band(c.v + 0.3, 0.09, c.width))
    return broad, 0.8 * thin


def targets(c: Cells) -> Weights:
    """Rings around the middle of each cell."""
    radius = torch.hypot(c.fu - 0.5, c.fv - 0.5)
    rings = band(radius * 4.0, 0.5, c.width * 4.0) * step(0.46 - radius, c.width)
    return rings, 0.6 * c.cell * (1.0 - rings)


def terrazzo(c: Cells) -> Weights:
    """Chips of two colours."""
    chips = value_noise(c.u * 2.2, c.v * 2.2, c.seed + 71.0)
    return step(chips - 0.64, c.width * 3.0), step(0.32 - chips, c.width * 3.0)


def crosses(c: Cells) -> Weights:
    """Plus signs on squares of many shades."""
    du, dv = c.centered()
    upright = step(0.13 - du, c.width) * step(0.37 - dv, c.width)
    level = step(0.13 - dv, c.width) * step(0.37 - du, c.width)
    return torch.maximum(upright, level), 0.5 * c.cell


def waves(c: Cells) -> Weights:
    """Wavy stripes."""
    wave = c.v + 0.25 * torch.sin(0.5 * _TURN * c.u)
    return band(wave, 0.45, c.width * 1.3), 0.4 * c.coarse


def triangles(c: Cells) -> Weights:
    """Squares cut along one diagonal or the other."""
    side = torch.where(c.cell < 0.5, c.fu - c.fv, c.fu + c.fv - 1.0)
    shade = lattice_hash(c.column, c.row, c.seed + 101.0)
    return step(side, c.width * 1.4), 0.6 * shade


def speckle(c: Cells) -> Weights:
    """Spots of two colours at scattered places."""
    return _spots(c, 1.0, 113.0), 0.9 * _spots(c, 1.7, 151.0)


def ladder(c: Cells) -> Weights:
    """Rails with rungs between every second pair."""
    rungs = band(c.v * 2.0, 0.3, c.width * 2.0) * band(c.u * 0.5, 0.5, c.width * 0.5)
    return torch.maximum(band(c.u, 0.14, c.width), rungs), 0.5 * c.cell


def _spots(c: Cells, scale: float, seed: float) -> Tensor:
    u, v = c.u * scale, c.v * scale
    column, row = torch.floor(u), torch.floor(v)
    first = lattice_hash(column, row, c.seed + seed)
    second = lattice_hash(column, row, c.seed + (seed + 17.0))
    away = torch.hypot(u - column - 0.3 - 0.4 * first, v - row - 0.3 - 0.4 * second)
    size = 0.1 + 0.18 * fraction(7.0 * (first + second))
    return step(size - away, c.width * scale)
