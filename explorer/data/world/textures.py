"""Procedural textures on a surface's own coordinates.

Patterns weigh two or three colours; value noise breaks them up so that no two places of a surface
look quite alike. Parameters are drawn by `sample_textures` and read by `albedo`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from explorer._typing import Float
from explorer.data.world import held_out_patterns, patterns
from explorer.data.world.draws import Draws
from explorer.data.world.noise import PERIOD
from explorer.data.world.spec import FIRST_OBJECT, HELD_OUT_TEXTURES, SURFACES, TEXTURES

TEXTURE_PARAMS = 17  # kind, three colours, scale, cos, sin, two offsets, two scales of detail

_PATTERNS = {
    name: getattr(held_out_patterns if name in HELD_OUT_TEXTURES else patterns, name)
    for name in TEXTURES
}
_LARGER = {"glyphs": 0.85, "weave": 0.7, "targets": 0.8, "windows": 0.9, "wood": 0.8}
_DETAIL = {"planks": (1.2, 5.0), "terrazzo": (2.2, 2.2), "contours": (0.6, 0.6)}  # blobs a cell
_NARROWEST = 0.004  # a pixel in cells; divides


def sample_textures(draws: Draws, names: tuple[str, ...]) -> Float[np.ndarray, "B M 17"]:
    """(B, M, 17) parameters of the textures of all surfaces.

    Args:
        draws: of B scenes.
        names: which of `TEXTURES` to draw from.
    """
    raw = draws.many(SURFACES * TEXTURE_PARAMS).reshape(draws.count, SURFACES, TEXTURE_PARAMS)
    texture = raw.copy()
    kinds = np.array([TEXTURES.index(name) for name in names])
    kind = kinds[np.minimum(np.floor(raw[:, :, 0] * len(kinds)), len(kinds) - 1).astype(np.int64)]
    texture[:, :, 0] = kind
    first = 0.08 + 0.84 * raw[:, :, 1:4]
    second = 0.08 + 0.84 * raw[:, :, 4:7]
    # A pattern needs contrast: push the second colour away where it came out too near.
    near = np.abs((first - second).mean(axis=2, keepdims=True)) < 0.2
    away = np.where(first.mean(axis=2, keepdims=True) < 0.5, 0.42, -0.42)
    texture[:, :, 1:4] = first
    texture[:, :, 4:7] = np.where(near, np.clip(first + away, 0.04, 0.96), second)
    texture[:, :, 7:10] = 0.08 + 0.84 * raw[:, :, 7:10]
    saturation = 0.25 + 0.6 * raw[:, :, 12:13]
    for start in (1, 4, 7):
        colour = texture[:, :, start : start + 3]
        grey = colour.mean(axis=2, keepdims=True)
        texture[:, :, start : start + 3] = grey + saturation * (colour - grey)
    is_object = np.arange(SURFACES)[None] >= FIRST_OBJECT
    larger = np.array([_LARGER.get(name, 1.0) for name in TEXTURES])[kind]
    cells = np.where(is_object, 1.7, 0.85) * 2.4 ** raw[:, :, 10]  # per unit
    texture[:, :, 10] = cells * larger
    turn = raw[:, :, 11] * np.pi
    texture[:, :, 11], texture[:, :, 12] = np.cos(turn), np.sin(turn)
    texture[:, :, 13:15] = raw[:, :, 13:15] * PERIOD
    texture[:, :, 15:17] = np.array([_DETAIL.get(name, (2.1, 2.1)) for name in TEXTURES])[kind]
    return texture


def albedo(
    table: Tensor,
    u: Tensor,
    v: Tensor,
    footprint: Tensor,
    parameters: list[Tensor],
    *,
    names: tuple[str, ...] = TEXTURES,
) -> list[Tensor]:
    """Three colour channels in [0, 1] of the textures at surface coordinates.

    Args:
        table: of `noise.lattice`.
        u: first surface coordinate in units, any shape.
        v: second surface coordinate, of u's shape.
        footprint: width of the pixel on the surface in units, of u's shape.
        parameters: the 17 texture parameters of `Scenes.texture`, each of u's shape.
        names: textures that occur; others are not computed.
    """
    scale, cosine, sine = parameters[10], parameters[11], parameters[12]
    cell_u = (cosine * u + sine * v) * scale + parameters[13]
    cell_v = (cosine * v - sine * u) * scale + parameters[14]
    width = torch.clamp(footprint * scale, min=_NARROWEST)
    cells = patterns.Cells.at(table, cell_u, cell_v, width, (parameters[15], parameters[16]))
    second = third = torch.zeros_like(cell_u)
    for number, name in enumerate(TEXTURES):
        if name not in names:
            continue
        chosen = parameters[0] == number
        ours = _PATTERNS[name](cells)
        second = torch.where(chosen, ours[0], second)
        third = torch.where(chosen, ours[1], third)
    # Far away, where a cell is no wider than a pixel, only the mean colour is left.
    known = torch.clamp(1.6 - 1.2 * width, 0.0, 1.0)
    second, third = 0.4 + known * (second - 0.4), 0.2 + known * (third - 0.2)
    fine = torch.clamp(1.6 - 2.8 * width, 0.0, 1.0)
    brightness = 0.92 + 0.16 * fine * (cells.detail - 0.5) + 0.24 * cells.coarse
    channels = []
    for channel in range(3):
        base = torch.lerp(parameters[1 + channel], parameters[4 + channel], second)
        channels.append(torch.lerp(base, parameters[7 + channel], third) * brightness)
    return channels
