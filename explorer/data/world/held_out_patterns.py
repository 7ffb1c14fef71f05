"""Textures that only scenes of the shifted split have."""

from __future__ import annotations

import torch
from torch import Tensor

from explorer.data.world.noise import band, fraction, lattice_value, step
from explorer.data.world.patterns import Cells, Weights

_TALL = 3.0**0.5  # rows of hexagons, in cells


def hexagons(c: Cells) -> Weights:
    """Hexagonal tiles with joints, every tile in its own shade."""

    def offset(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return fraction(u) - 0.5, (fraction(v / _TALL) - 0.5) * _TALL

    au, av = offset(c.u, c.v)
    bu, bv = offset(c.u - 0.5, c.v - 0.5 * _TALL)
    nearer = au * au + av * av < bu * bu + bv * bv
    du, dv = torch.where(nearer, au, bu), torch.where(nearer, av, bv)
    edge = 0.5 - torch.maximum(torch.abs(du), 0.5 * torch.abs(du) + 0.5 * _TALL * torch.abs(dv))
    column = torch.floor(2.0 * (c.u - du) + 0.5)
    row = torch.floor(2.0 * (c.v - dv) / _TALL + 0.5)
    joints = step(0.05 - edge, c.sharpness)
    return joints, 0.9 * lattice_value(c.table, column, row) * (1.0 - joints)


def truchet(c: Cells) -> Weights:
    """Quarter circles that join into winding paths."""
    u = torch.where(c.cell < 0.5, c.fu, 1.0 - c.fu)
    one = torch.abs(torch.sqrt(u * u + c.fv * c.fv) - 0.5)
    other = torch.abs(torch.sqrt((1.0 - u) ** 2 + (1.0 - c.fv) ** 2) - 0.5)
    return step(0.12 - torch.minimum(one, other), c.sharpness), 0.3 * c.coarse


def contours(c: Cells) -> Weights:
    """Contour lines of a hilly map."""
    return band(c.detail * 6.0, 0.3, c.width * 5.0), 0.9 * c.detail


def weave(c: Cells) -> Weights:
    """A basket: three strands one way, three the other."""
    across = fraction(0.5 * (c.column + c.row)) > 0.25
    strand = torch.where(across, c.u, c.v) * 3.0
    return band(strand, 0.3, c.width * 3.0), 0.55 * across.to(c.u.dtype)


def windows(c: Cells) -> Weights:
    """A facade: panes, some lit, and ledges."""
    du, dv = c.centered()
    pane = step(0.27 - du, c.sharpness) * step(0.34 - dv, c.sharpness)
    lit = (c.cell > 0.6).to(c.u.dtype)
    return torch.maximum(pane * (1.0 - lit), 0.8 * band(c.v, 0.07, c.width)), pane * lit
