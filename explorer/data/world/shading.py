"""Colours of hit points: textures, light without and with direction, and the sky."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from explorer._typing import Float
from explorer.data.world import textures
from explorer.data.world.scene import BOX, FIRST_OBJECT, TEXTURE_PARAMS
from explorer.data.world.tracing import Triple

_SHADOW_BIAS = 2e-3


class Paint(NamedTuple):
    """What is known of the hit points before shadows; triples and singles of (B, R) tensors.

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
    scene: dict[str, Tensor], origin: Triple, ray: Triple, depth: Tensor, surface: Tensor
) -> Paint:
    """Textures and light directions at the hit points."""
    t = torch.where(surface > 0, depth, torch.zeros_like(depth))
    x, y, z = (origin[axis] + t * ray[axis] for axis in range(3))
    local, normal = _local_frame(scene, surface, (x, y, z))
    u, v = _surface_coordinates(local[0], local[1])
    parameters = [
        torch.gather(scene["texture"][:, :, number], 1, surface) for number in range(TEXTURE_PARAMS)
    ]
    albedo = textures.albedo(u, v, parameters)
    lx, ly, lz = (scene["light"][:, a : a + 1] - point for a, point in enumerate((x, y, z)))
    distance = torch.sqrt(lx**2 + ly**2 + lz**2)
    facing = (normal[0] * lx + normal[1] * ly + normal[2] * lz) / distance
    ambient = scene["ambient"][:, None]
    # A little fill light from above keeps shadowed faces apart.
    indirect = ambient * (0.85 - 0.15 * normal[1])
    direct = (1.05 - ambient) * torch.clamp(facing, min=0.0)
    lift = _SHADOW_BIAS
    return Paint(
        colour=(albedo[0] * indirect, albedo[1] * indirect, albedo[2] * indirect),
        direct=(albedo[0] * direct, albedo[1] * direct, albedo[2] * direct),
        sky=_sky(scene, ray),
        lifted=(x + lift * normal[0], y + lift * normal[1], z + lift * normal[2]),
        light=(lx, ly, lz),
    )


def light_up(paint: Paint, hit: Tensor, blocked: Tensor) -> Float[Tensor, "3 B R"]:
    """Colours in [0, 1] once it is known which points the light reaches."""
    lit = (~blocked).to(paint.sky[0].dtype)
    channels = [
        torch.where(hit, paint.colour[c] + paint.direct[c] * lit, paint.sky[c]) for c in range(3)
    ]
    return torch.stack(channels).clamp(0.0, 1.0)


def _local_frame(
    scene: dict[str, Tensor], surface: Tensor, point: Triple
) -> tuple[tuple[Triple, Triple], Triple]:
    """((coordinates, normal) in the surface's own frame, normal in the world)."""
    x, y, z = point
    index = torch.clamp(surface - FIRST_OBJECT, min=0)
    is_object = surface >= FIRST_OBJECT

    def pick(name: str, axis: int | None = None) -> Tensor:
        values = scene[name] if axis is None else scene[name][:, :, axis]
        return torch.gather(values, 1, index)

    px, py, pz = x - pick("center", 0), y - pick("center", 1), z - pick("center", 2)
    yaw, is_box = pick("yaw"), pick("kind") == BOX
    cosine, sine = torch.cos(yaw), torch.sin(yaw)
    qx, qz = cosine * px - sine * pz, sine * px + cosine * pz
    hx, hy, hz = pick("half", 0), pick("half", 1), pick("half", 2)
    # The hit face of a box is the axis on which the point lies furthest out.
    rx, ry, rz = torch.abs(qx) / hx, torch.abs(py) / hy, torch.abs(qz) / hz
    face_x = (rx >= ry) & (rx >= rz)
    face_y = ~face_x & (ry >= rz)
    zero = torch.zeros_like(x)
    box_nx = torch.where(face_x, torch.sign(qx), zero)
    box_ny = torch.where(face_y, torch.sign(py), zero)
    box_nz = torch.where(face_x | face_y, zero, torch.sign(qz))
    lx = torch.where(is_box, box_nx, qx / hx)
    ly = torch.where(is_box, box_ny, py / hx)
    lz = torch.where(is_box, box_nz, qz / hx)
    plane_x = torch.where(surface == 2, 1.0, torch.where(surface == 3, -1.0, 0.0))
    plane_y = torch.where(surface == 1, -1.0, torch.where(surface == 6, 1.0, 0.0))
    plane_z = torch.where(surface == 4, 1.0, torch.where(surface == 5, -1.0, 0.0))
    local_normal = (
        torch.where(is_object, lx, plane_x),
        torch.where(is_object, ly, plane_y),
        torch.where(is_object, lz, plane_z),
    )
    world_normal = (
        torch.where(is_object, cosine * lx + sine * lz, plane_x),
        local_normal[1],
        torch.where(is_object, -sine * lx + cosine * lz, plane_z),
    )
    local = (
        torch.where(is_object, qx, x),
        torch.where(is_object, py, y),
        torch.where(is_object, qz, z),
    )
    return (local, local_normal), world_normal


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


def _sky(scene: dict[str, Tensor], ray: Triple) -> Triple:
    """Horizon to zenith with soft clouds, a function of the direction alone."""
    dx, dy, dz = ray
    up = -dy / torch.sqrt(dx * dx + dy * dy + dz * dz)
    level = torch.clamp(up, min=0.0)
    reach = 1.0 / (level + 0.25)
    seed = torch.zeros_like(dx, dtype=torch.int64)
    cloud = textures.value_noise(dx * reach * 3.0 + 31.0, dz * reach * 3.0 + 17.0, seed)
    low, high, haze = scene["sky"][:, 0], scene["sky"][:, 1], 0.12 * (cloud - 0.5)
    red, green, blue = (
        torch.lerp(low[:, channel, None], high[:, channel, None], level) + haze
        for channel in range(3)
    )
    return red, green, blue
