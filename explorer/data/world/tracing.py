"""Rays through pixels, and what they hit first.

Rays are parametrised by z-depth (direction with z_cam = 1), so the ray parameter of a hit is its
depth. All tensors are (B, R): scenes by rays; the coordinates are separate tensors, which a
compiler can fuse into one kernel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from explorer._typing import Float
from explorer.data.world.scene import BOX, FIRST_OBJECT, MAX_OBJECTS, SPHERE, Scenes

FAR = 1e6  # the depth of rays that hit nothing
_SKY_LIMIT = 12.0  # an open ground ends here; beyond it is sky

Triple = tuple[Tensor, Tensor, Tensor]


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


def object_depth(
    center: Tensor, half: Tensor, yaw: Tensor, kind: Tensor, origin: Triple, ray: Triple
) -> Tensor:
    """Ray parameter (B, R) of the first hit of one object a scene, `FAR` without one.

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
    sphere_t = torch.where((root > 0) & (sphere_t > 1e-4), sphere_t, FAR)
    # Box: slabs in its own frame, turned by yaw about y.
    cosine, sine = torch.cos(yaw), torch.sin(yaw)
    qx, qz = cosine * px - sine * pz, sine * px + cosine * pz
    ex, ez = cosine * dx - sine * dz, sine * dx + cosine * dz
    enter = torch.full_like(dx, -FAR)
    leave = torch.full_like(dx, FAR)
    for q, e, extent in ((qx, ex, half[:, 0:1]), (py, dy, half[:, 1:2]), (qz, ez, half[:, 2:3])):
        inverse = 1.0 / _away_from_zero(e)
        first, second = (-extent - q) * inverse, (extent - q) * inverse
        enter = torch.maximum(enter, torch.minimum(first, second))
        leave = torch.minimum(leave, torch.maximum(first, second))
    box_t = torch.where((enter < leave) & (enter > 1e-4), enter, FAR)
    t = torch.where(kind == BOX, box_t, torch.full_like(box_t, FAR))
    return torch.where(kind == SPHERE, sphere_t, t)


def intersect(
    scene: dict[str, Tensor],
    origin: Triple,
    ray: Triple,
    *,
    kernel: Callable[..., Tensor] = object_depth,
) -> tuple[Tensor, Tensor]:
    """(depth, surface id) of the first hit of each ray; depth is `FAR` and the id 0 in the sky.

    Args:
        scene: `scene_tensors`.
        origin: x, y and z of the rays' origins, (B, R) each; world frame.
        ray: x, y and z of their directions, (B, R) each; depth counts in their lengths.
        kernel: `object_depth` or a compiled version of it.
    """
    ox, oy, oz = origin
    dx, dy, dz = ray
    room = scene["room"][:, None]
    low, high = scene["room_min"], scene["room_max"]
    best = torch.full_like(dx, FAR)
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
        t = kernel(*object_of(scene, index), origin, ray)
        closer = t < best
        best = torch.where(closer, t, best)
        surface = torch.where(closer, FIRST_OBJECT + index, surface)
    return best, surface


def _away_from_zero(x: Tensor) -> Tensor:
    return torch.where(torch.abs(x) < 1e-8, torch.full_like(x, 1e-8), x)


def object_of(scene: dict[str, Tensor], index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(center, half, yaw, kind) of one object a scene, as `object_depth` takes them."""
    return (
        scene["center"][:, index],
        scene["half"][:, index],
        scene["yaw"][:, index : index + 1],
        scene["kind"][:, index : index + 1],
    )
