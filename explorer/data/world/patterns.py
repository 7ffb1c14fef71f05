"""The textures that models train on, each a weight between two or three colours.

A pattern takes `Cells` and returns (weight of the second colour, weight of the third colour). Edges
are averaged over the pixel's footprint, so that no detail is finer than the pixel grid.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from explorer.data.world.noise import band, fraction, lattice_value, step, value_noise

_TURN = 6.2832

Weights = tuple[Tensor, Tensor]


class Cells(NamedTuple):
    """Where hit points lie in the lattice of their texture; tensors of one shape.

    Attributes:
        table: of `noise.lattice`.
        u, v: coordinates; a cell of the pattern is one unit.
        width: of the pixel, in cells; sharpness: one over it.
        row, column: whole parts of v and u; fu, fv: the fractions.
        cell: a uniform number for each cell.
        coarse: smooth noise, about one blob a cell.
        detail: smooth noise as fine as the texture asks for.
    """

    table: Tensor
    u: Tensor
    v: Tensor
    width: Tensor
    sharpness: Tensor
    column: Tensor
    row: Tensor
    fu: Tensor
    fv: Tensor
    cell: Tensor
    coarse: Tensor
    detail: Tensor

    @classmethod
    def at(
        cls, table: Tensor, u: Tensor, v: Tensor, width: Tensor, detail: tuple[Tensor, Tensor]
    ) -> Cells:
        """Cells at lattice coordinates; `detail` has blobs a cell along u and v."""
        column, row = torch.floor(u), torch.floor(v)
        cell = lattice_value(table, column + 11.0, row + 29.0)
        coarse = value_noise(table, u * 0.9, v * 0.9)
        fine = value_noise(table, u * detail[0], v * detail[1])
        fu, fv = u - column, v - row
        return cls(table, u, v, width, 1.0 / width, column, row, fu, fv, cell, coarse, fine)

    def centered(self) -> tuple[Tensor, Tensor]:
        """Distances from the middle of the cell along u and v."""
        return torch.abs(self.fu - 0.5), torch.abs(self.fv - 0.5)

    def radius(self) -> Tensor:
        """Distance from the middle of the cell."""
        du, dv = self.fu - 0.5, self.fv - 0.5
        return torch.sqrt(du * du + dv * dv)


def plaster(c: Cells) -> Weights:
    """Blotches of two sizes."""
    weight = torch.clamp((0.6 * c.coarse + 0.4 * c.detail - 0.5) * 3.0 + 0.5, 0.0, 1.0)
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
    shade = lattice_value(c.table, torch.floor(along) + 31.0, c.row)
    return mortar, 0.8 * shade * (1.0 - mortar)


def dots(c: Cells) -> Weights:
    """Discs of many sizes."""
    radius = c.radius()
    return step(0.15 + 0.25 * c.cell - radius, c.sharpness), torch.zeros_like(radius)


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
    return step(0.42 - du - dv, c.sharpness * 0.7), 0.6 * c.cell


def planks(c: Cells) -> Weights:
    """Long boards with a grain."""
    along = c.u * 0.35 + lattice_value(c.table, c.row, 0.0 * c.row)
    joints = torch.maximum(band(c.v, 0.06, c.width), band(along, 0.03, c.width * 0.35))
    shade = lattice_value(c.table, torch.floor(along) + 37.0, c.row)
    return torch.maximum(joints, 0.4 * c.detail), 0.7 * shade * (1.0 - joints)


def glyphs(c: Cells) -> Weights:
    """Lines of made-up letters, four by five dots each and symmetric, with spaces between words."""
    column, row = torch.floor(c.fu * 5.0), torch.floor(c.fv * 6.0)
    mirrored = torch.minimum(column, 3.0 - column)
    ink = lattice_value(c.table, c.column * 5.0 + mirrored, c.row * 6.0 + row) > 0.42
    letter = (column < 4.0) & (row < 5.0) & (c.cell > 0.16)
    return (ink & letter).to(c.u.dtype), torch.zeros_like(c.u)


def plaid(c: Cells) -> Weights:
    """A tartan: broad bands that mix where they cross, and thin lines."""
    broad = 0.5 * (band(c.u, 0.4, c.width) + band(c.v, 0.4, c.width))
    thin = torch.maximum(band(c.u + 0.3, 0.09, c.width), band(c.v + 0.3, 0.09, c.width))
    return broad, 0.8 * thin


def targets(c: Cells) -> Weights:
    """Rings around the middle of each cell."""
    radius = c.radius()
    rings = band(radius * 4.0, 0.5, c.width * 4.0) * step(0.46 - radius, c.sharpness)
    return rings, 0.6 * c.cell * (1.0 - rings)


def terrazzo(c: Cells) -> Weights:
    """Chips of two colours."""
    sharpness = c.sharpness * 0.33
    return step(c.detail - 0.64, sharpness), step(0.32 - c.detail, sharpness)


def crosses(c: Cells) -> Weights:
    """Plus signs on squares of many shades."""
    du, dv = c.centered()
    upright = step(0.13 - du, c.sharpness) * step(0.37 - dv, c.sharpness)
    level = step(0.13 - dv, c.sharpness) * step(0.37 - du, c.sharpness)
    return torch.maximum(upright, level), 0.5 * c.cell


def waves(c: Cells) -> Weights:
    """Wavy stripes."""
    wave = c.v + 0.25 * torch.sin(0.5 * _TURN * c.u)
    return band(wave, 0.45, c.width * 1.3), 0.4 * c.coarse


def triangles(c: Cells) -> Weights:
    """Squares cut along one diagonal or the other."""
    side = torch.where(c.cell < 0.5, c.fu - c.fv, c.fu + c.fv - 1.0)
    return step(side, c.sharpness * 0.7), 0.6 * fraction(c.cell * 57.0)


def speckle(c: Cells) -> Weights:
    """Spots of two colours at scattered places."""
    u, v = c.u * 1.7, c.v * 1.7
    column, row = torch.floor(u), torch.floor(v)
    other = lattice_value(c.table, column, row + 53.0)
    first = _spot(c.fu, c.fv, c.cell, c.sharpness)
    return first, 0.9 * _spot(u - column, v - row, other, c.sharpness * 0.6)


def _spot(fu: Tensor, fv: Tensor, uniform: Tensor, sharpness: Tensor) -> Tensor:
    du = fu - 0.3 - 0.4 * uniform
    dv = fv - 0.3 - 0.4 * fraction(uniform * 31.0)
    size = 0.1 + 0.18 * fraction(uniform * 97.0)
    return step(size - torch.sqrt(du * du + dv * dv), sharpness)


def ladder(c: Cells) -> Weights:
    """Rails with rungs between every second pair."""
    rungs = band(c.v * 2.0, 0.3, c.width * 2.0) * band(c.u * 0.5, 0.5, c.width * 0.5)
    return torch.maximum(band(c.u, 0.14, c.width), rungs), 0.5 * c.cell
