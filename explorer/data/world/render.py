"""A batched ray tracer: images by supersampling, geometry exactly at the pixel centres.

Rays are parametrised by z-depth (direction with z_cam = 1), so the ray parameter of a hit is its
depth. All tensors are (B, R): scenes by rays; the coordinates are separate tensors, which a
compiler can fuse into one kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from explorer._typing import Float, Int, UInt8
from explorer.data.world import textures
from explorer.data.world.scene import BOX, FIRST_OBJECT, MAX_OBJECTS, SPHERE, TEXTURE_PARAMS, Scenes

_FAR = 1e6
_SKY_LIMIT = 12.0  # an open ground ends here; beyond it is sky
_SHADOW_BIAS = 2e-3

Triple = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Rendered:
    """B rendered clips.

    Attributes:
        images: (B, T, H, W, 3) uint8.
        depth: (B, T, H, W) float32 z-depth at the pixel centre, 0 in the sky.
        surface: (B, T, H, W) uint8, 0 sky, 1 floor, 2-5 walls, 6 ceiling, then objects.
        cam_from_world: (B, T, 3, 4), OpenCV axes.
        intrinsics: (B, 3, 3) in pixels of (H, W), pixel centres at +0.5.
    """

    images: UInt8[Tensor, "B T H W 3"]
    depth: Float[Tensor, "B T H W"]
    surface: UInt8[Tensor, "B T H W"]
    cam_from_world: Float[Tensor, "B T 3 4"]
    intrinsics: Float[Tensor, "B 3 3"]


def scene_tensors(scenes: Scenes, device: str) -> dict[str, Tensor]:
    """The scenes' arrays as tensors on a device.

    Args:
        scenes: B scenes.
        device: "cpu" or "cuda:0" for example.
    """
    names = ("room_min", "room_max", "center", "half", "yaw", "texture", "light", "ambient", "sky")
    tensors = {name: torch.from_numpy(getattr(scenes, name)).to(device) for name in names}
    tensors["room"] = torch.from_numpy(scenes.room).to(device)
    tensors["kind"] = torch.from_numpy(scenes.kind).to(device)
    return tensors


def object_depth(
    center: Tensor, half: Tensor, yaw: Tensor, kind: Tensor, origin: Triple, ray: Triple
) -> Tensor:
    """Ray parameter (B, R) of the first hit of one object a scene, `_FAR` without one.

    Args:
        center: (B, 3) of the object.
        half: (B, 3) half extents; a sphere's radius comes first.
        yaw: (B, 1) rotation about y.
        kind: (B, 1) 0 none, 1 box, 2 sphere.
        origin: x, y and z of the rays' origins, (B, R) each; world frame.
        ray: x, y and z of their directions, (B, R) each.
    """
    px, py, pz = (origin[axis] - center[:, axis : axis + 1] for axis in range(3))
    dx, dy, dz = ray
    # Sphere: |p + t d|^2 = r^2.
    a = dx * dx + dy * dy + dz * dz
    b = px * dx + py * dy + pz * dz
    c = px * px + py * py + pz * pz - half[:, 0:1] ** 2
    root = b * b - a * c
    sphere_t = (-b - torch.sqrt(torch.clamp(root, min=0.0))) / a
    sphere_t = torch.where((root > 0) & (sphere_t > 1e-4), sphere_t, _FAR)
    # Box: slabs in its own frame, turned by yaw about y.
    cosine, sine = torch.cos(yaw), torch.sin(yaw)
    qx, qz = cosine * px - sine * pz, sine * px + cosine * pz
    ex, ez = cosine * dx - sine * dz, sine * dx + cosine * dz
    enter = torch.full_like(dx, -_FAR)
    leave = torch.full_like(dx, _FAR)
    for q, e, extent in ((qx, ex, half[:, 0:1]), (py, dy, half[:, 1:2]), (qz, ez, half[:, 2:3])):
        inverse = 1.0 / _away_from_zero(e)
        first, second = (-extent - q) * inverse, (extent - q) * inverse
        enter = torch.maximum(enter, torch.minimum(first, second))
        leave = torch.minimum(leave, torch.maximum(first, second))
    box_t = torch.where((enter < leave) & (enter > 1e-4), enter, _FAR)
    t = torch.where(kind == BOX, box_t, torch.full_like(box_t, _FAR))
    return torch.where(kind == SPHERE, sphere_t, t)


def intersect(
    scene: dict[str, Tensor], origin: Triple, ray: Triple, kernels: Kernels | None = None
) -> tuple[Tensor, Tensor]:
    """(depth, surface id) of the first hit of each ray; depth is `_FAR` and the id 0 in the sky.

    Args:
        scene: `scene_tensors`.
        origin: x, y and z of the rays' origins, (B, R) each; world frame.
        ray: x, y and z of their directions, (B, R) each; depth counts in their lengths.
        kernels: compiled versions of the arithmetic.
    """
    kernels = kernels or EAGER
    ox, oy, oz = origin
    dx, dy, dz = ray
    room = scene["room"][:, None]
    low, high = scene["room_min"], scene["room_max"]
    best = torch.full_like(dx, _FAR)
    surface = torch.zeros_like(dx, dtype=torch.int64)

    def plane(
        best: Tensor, surface: Tensor, t: Tensor, hit: Tensor, number: int
    ) -> tuple[Tensor, Tensor]:
        closer = hit & (t > 1e-4) & (t < best)
        return torch.where(closer, t, best), torch.where(closer, number, surface)

    floor_t = -oy / _away_from_zero(dy)
    on_ground = torch.hypot(ox + floor_t * dx, oz + floor_t * dz) < _SKY_LIMIT
    best, surface = plane(best, surface, floor_t, room | on_ground, 1)
    for number, o, d, bound in (
        (2, ox, dx, low[:, 0:1]),
        (3, ox, dx, high[:, 0:1]),
        (4, oz, dz, low[:, 2:3]),
        (5, oz, dz, high[:, 2:3]),
        (6, oy, dy, low[:, 1:2]),
    ):
        best, surface = plane(best, surface, (bound - o) / _away_from_zero(d), room, number)
    for index in range(MAX_OBJECTS):
        t = kernels.object_depth(*_object(scene, index), origin, ray)
        closer = t < best
        best = torch.where(closer, t, best)
        surface = torch.where(closer, FIRST_OBJECT + index, surface)
    return best, surface


def _away_from_zero(x: Tensor) -> Tensor:
    return torch.where(torch.abs(x) < 1e-8, torch.full_like(x, 1e-8), x)


def _object(scene: dict[str, Tensor], index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(center, half, yaw, kind) of one object a scene, as `object_depth` takes them."""
    return (
        scene["center"][:, index],
        scene["half"][:, index],
        scene["yaw"][:, index : index + 1],
        scene["kind"][:, index : index + 1],
    )


def shade(
    scene: dict[str, Tensor], origin: Triple, ray: Triple, kernels: Kernels | None = None
) -> Float[Tensor, "3 B R"]:
    """Colours in [0, 1] of rays: texture times light with hard shadows, or the sky."""
    kernels = kernels or EAGER
    depth, surface = intersect(scene, origin, ray, kernels)
    paint = kernels.paint(scene, origin, ray, depth, surface)
    blocked = torch.zeros_like(surface, dtype=torch.bool)
    for index in range(MAX_OBJECTS):
        t = kernels.object_depth(*_object(scene, index), paint.lifted, paint.light)
        blocked = blocked | (t < 1.0)
    lit: Tensor = kernels.light_up(paint, surface > 0, blocked)
    return lit


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


@dataclass(frozen=True)
class Kernels:
    """The arithmetic of the tracer; `compiled()` fuses each part into a few GPU kernels."""

    object_depth: Callable[..., Tensor] = object_depth
    paint: Callable[..., Paint] = paint_hits
    light_up: Callable[..., Tensor] = light_up

    @classmethod
    def compiled(cls) -> Kernels:
        """Compiled for any shape; three small parts compile faster than one large one."""
        return cls(
            torch.compile(object_depth, dynamic=True),
            torch.compile(paint_hits, dynamic=True),
            torch.compile(light_up, dynamic=True),
        )


EAGER = Kernels()


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


def rays(
    cam_from_world: Float[Tensor, "B T 3 4"],
    intrinsics: Float[Tensor, "B 3 3"],
    height: int,
    width: int,
    *,
    offset: tuple[float, float] = (0.5, 0.5),
) -> tuple[Triple, Triple]:
    """Origins and directions, three (B, T*H*W) tensors each, of one ray through every pixel.

    Args:
        cam_from_world: (B, T, 3, 4), OpenCV axes.
        intrinsics: (B, 3, 3) in pixels of (height, width).
        height: of the images in pixels.
        width: of the images in pixels.
        offset: (x, y) of the ray in its pixel; (0.5, 0.5) is the centre.
    """
    device, batch, frames = cam_from_world.device, cam_from_world.shape[0], cam_from_world.shape[1]
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32) + offset[1],
        torch.arange(width, device=device, dtype=torch.float32) + offset[0],
        indexing="ij",
    )
    x, y = x.reshape(1, -1), y.reshape(1, -1)
    camera_x = (x - intrinsics[:, 0, 2, None]) / intrinsics[:, 0, 0, None]
    camera_y = (y - intrinsics[:, 1, 2, None]) / intrinsics[:, 1, 1, None]
    rotation, translation = cam_from_world[..., :3], cam_from_world[..., 3]
    center = -torch.einsum("btji,btj->bti", rotation, translation)
    origin, direction = [], []
    for axis in range(3):
        column = rotation[:, :, :, axis, None]
        value = (
            column[:, :, 0] * camera_x[:, None]
            + column[:, :, 1] * camera_y[:, None]
            + column[:, :, 2]
        )
        direction.append(value.reshape(batch, -1))
        spread = center[:, :, axis, None].expand(batch, frames, height * width)
        origin.append(spread.reshape(batch, -1))
    return (origin[0], origin[1], origin[2]), (direction[0], direction[1], direction[2])


def render(
    scenes: Scenes,
    *,
    height: int,
    width: int,
    supersample: int = 2,
    device: str = "cpu",
    frames: list[int] | None = None,
    kernels: Kernels = EAGER,
    images: bool = True,
) -> Rendered:
    """Images and exact geometry of scenes.

    Args:
        scenes: B scenes.
        height: of the images in pixels.
        width: of the images in pixels.
        supersample: rays a pixel along each axis for the images (geometry has one, at the centre).
        device: where to render, "cpu" or "cuda:0" for example.
        frames: which frames of the path, default all.
        kernels: `Kernels.compiled()` is faster where many scenes are rendered.
        images: whether to make pictures; without them `images` has no frames.
    """
    tensors = scene_tensors(scenes, device)
    poses = scenes.cam_from_world if frames is None else scenes.cam_from_world[:, frames]
    cam_from_world = torch.from_numpy(np.ascontiguousarray(poses)).to(device)
    intrinsics = torch.from_numpy(scenes.intrinsics(height, width)).to(device)
    batch, count = cam_from_world.shape[:2]
    shape = (batch, count, height, width)
    with torch.inference_mode():
        total = torch.zeros(3, batch, count * height * width if images else 0, device=device)
        for sample in range(supersample**2 if images else 0):
            offset = (
                (sample % supersample + 0.5) / supersample,
                (sample // supersample + 0.5) / supersample,
            )
            origin, ray = rays(cam_from_world, intrinsics, height, width, offset=offset)
            total = total + shade(tensors, origin, ray, kernels)
        mean = (total / supersample**2 * 255.0 + 0.5).to(torch.uint8).permute(1, 2, 0)
        pictures = mean.reshape(batch, count if images else 0, height, width, 3)
        origin, ray = rays(cam_from_world, intrinsics, height, width)
        depth, surface = intersect(tensors, origin, ray, kernels)
        depth = torch.where(surface > 0, depth, torch.zeros_like(depth))
    return Rendered(
        images=pictures.contiguous(),
        depth=depth.reshape(shape),
        surface=surface.to(torch.uint8).reshape(shape),
        cam_from_world=cam_from_world,
        intrinsics=intrinsics,
    )


def surface_count(scenes: Scenes) -> Int[np.ndarray, " B"]:
    """(B,) number of objects in each scene."""
    return (scenes.kind > 0).sum(axis=1)
