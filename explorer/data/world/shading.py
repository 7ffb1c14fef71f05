"""Colours of hit points: textures, light without and with direction, and the sky."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from explorer._typing import Float
from explorer.data.world.noise import value_noise
from explorer.data.world.primitives import Triple, unit_normal
from explorer.data.world.textures import albedo

_SHADOW_BIAS = 2e-3
_GRAZING = 0.12  # pixels do not stretch further along a surface than by 1 over this


class Paint(NamedTuple):
    """What is known of the hit points before shadows; triples and singles of (B, T, R) tensors.

    Attributes:
        colour: albedo times ambient light, three channels.
        direct: what direct light adds to them, three channels.
        sky: the colour of rays that hit nothing.
        lifted: the hit points, moved off their surface.
        light: from there to the light.
    """

    colour: Triple
    direct: Triple
    sky: Triple
    lifted: Triple
    light: Triple


def paint_hits(
    table: Tensor,
    surfaces: Tensor,
    texture: Tensor,
    light: Tensor,
    ambient: Tensor,
    sky: Tensor,
    pixel: Tensor,
    origin: Triple,
    ray: Triple,
    depth: Tensor,
    surface: Tensor,
    *,
    primitives: tuple[str, ...],
    textures: tuple[str, ...],
) -> Paint:
    """Textures and light directions at the hit points.

    Args:
        table: of `noise.lattice`.
        surfaces: of `SceneTensors`, like the next four.
        texture: parameters of each surface's texture.
        light: position of the light.
        ambient: share of light without direction.
        sky: its colours.
        pixel: (B, 1, 1) width of a pixel at z-depth 1.
        origin: of the rays, (B, T, R or 1) each.
        ray: their directions, (B, T, R) each.
        depth: (B, T, R) where they hit.
        surface: (B, T, R) int32 ids of what they hit.
        primitives: names of those that occur; others are not computed.
        textures: names of those that occur; others are not computed.
    """
    hit = surface > 0
    index = surface.to(torch.int64)
    t = torch.where(hit, depth, torch.zeros_like(depth))
    point = (origin[0] + t * ray[0], origin[1] + t * ray[1], origin[2] + t * ray[2])

    def pick(table: Tensor) -> list[Tensor]:
        return [torch.gather(row, 2, index) for row in table.unbind()]

    kind, *numbers = pick(surfaces)
    half = numbers[:3]
    rows = [numbers[first : first + 4] for first in (3, 7, 11)]
    unit = [r[0] * point[0] + r[1] * point[1] + r[2] * point[2] + r[3] for r in rows]
    ours = unit_normal(kind, (unit[0], unit[1], unit[2]), primitives)
    planes = _plane_normal(surface)
    is_plane = kind == 0
    ux, uy, uz = (torch.where(is_plane, planes[axis], ours[axis]) for axis in range(3))
    # A gradient turns with the transposed inverse of what turns the points.
    nx, ny, nz = (rows[0][a] * ux + rows[1][a] * uy + rows[2][a] * uz for a in range(3))
    longer = torch.rsqrt(nx * nx + ny * ny + nz * nz + 1e-12)
    nx, ny, nz = nx * longer, ny * longer, nz * longer

    local = (unit[0] * half[0], unit[1] * half[1], unit[2] * half[2])
    u, v = _surface_coordinates(local, (ux / half[0], uy / half[1], uz / half[2]))
    length = torch.sqrt(ray[0] * ray[0] + ray[1] * ray[1] + ray[2] * ray[2])
    cosine = torch.abs(nx * ray[0] + ny * ray[1] + nz * ray[2]) / length
    footprint = pixel * t / torch.clamp(cosine, min=_GRAZING)
    colour = albedo(table, u, v, footprint, pick(texture), names=textures)

    lx, ly, lz = light[0] - point[0], light[1] - point[1], light[2] - point[2]
    facing = (nx * lx + ny * ly + nz * lz) * torch.rsqrt(lx * lx + ly * ly + lz * lz)
    # A little fill light from above keeps shadowed faces apart.
    indirect = ambient * (0.9 - 0.15 * ny)
    direct = (1.2 - ambient) * torch.clamp(facing, min=0.0)
    lift = _SHADOW_BIAS
    return Paint(
        colour=(colour[0] * indirect, colour[1] * indirect, colour[2] * indirect),
        direct=(colour[0] * direct, colour[1] * direct, colour[2] * direct),
        sky=_sky(table, sky, ray, length),
        lifted=(point[0] + lift * nx, point[1] + lift * ny, point[2] + lift * nz),
        light=(lx, ly, lz),
    )


def light_up(paint: Paint, hit: Tensor, blocked: Tensor) -> Float[Tensor, "3 B T R"]:
    """Colours in [0, 1] once it is known which points the light reaches."""
    lit = (~blocked).to(paint.sky[0].dtype)
    channels = [
        torch.where(hit, paint.colour[c] + paint.direct[c] * lit, paint.sky[c]) for c in range(3)
    ]
    return torch.stack(channels).clamp(0.0, 1.0)


def _plane_normal(surface: Tensor) -> Triple:
    """Normals of the room's planes, by surface id."""
    return (
        (surface == 2).float() - (surface == 3).float(),
        (surface == 6).float() - (surface == 1).float(),
        (surface == 4).float() - (surface == 5).float(),
    )


def _surface_coordinates(local: Triple, normal: Triple) -> tuple[Tensor, Tensor]:
    """Two coordinates on the face that the normal points out of (a cube map)."""
    ax, ay, az = (torch.abs(component) for component in normal)
    face_x = (ax >= ay) & (ax >= az)
    face_y = ~face_x & (ay >= az)
    u = torch.where(face_x, local[2], local[0])
    v = torch.where(face_y, local[2], local[1])
    # Opposite faces show different parts of the texture.
    side = torch.where(face_x, normal[0], torch.where(face_y, normal[1], normal[2]))
    return u + 3.7 * (side > 0), v + torch.where(face_x, 5.3, torch.where(face_y, 0.0, 9.1))


def _sky(table: Tensor, sky: Tensor, ray: Triple, length: Tensor) -> Triple:
    """Horizon to zenith with soft clouds, a function of the direction alone."""
    dx, dy, dz = ray
    level = torch.clamp(-dy / length, min=0.0)
    reach = 3.0 / (level + 0.25)
    reach = reach / length
    cloud = value_noise(table, dx * reach + 31.0, dz * reach + 17.0)
    haze = 0.12 * (cloud - 0.5)
    red, green, blue = (torch.lerp(sky[0, c], sky[1, c], level) + haze for c in range(3))
    return red, green, blue
