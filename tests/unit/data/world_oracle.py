"""An independent ray caster for the world's scenes: trimesh for all but spheres, in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import trimesh

from explorer.data.world.scene import Scenes
from explorer.data.world.spec import (
    BOX,
    CEILING,
    CONE,
    CYLINDER,
    FIRST_OBJECT,
    FLOOR,
    SPHERE,
    WALL_LEFT,
)
from explorer.data.world.tensors import scene_tensors
from explorer.data.world.tracing import intersect

GROUND_RADIUS = 12.0
SIDES = 512  # of round meshes: chords lie up to 1.9e-5 of the radius inside the circle


def world_rays(pixels, cam_from_world, intrinsics):
    """(origin (3,), directions (N, 3)) through image points, one unit of z-depth long."""
    pose = np.asarray(cam_from_world, dtype=np.float64)
    homogeneous = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)
    in_camera = homogeneous @ np.linalg.inv(np.asarray(intrinsics, dtype=np.float64)).T
    return -pose[:, :3].T @ pose[:, 3], in_camera @ pose[:, :3]


def unit_mesh(kind):
    """A mesh of a primitive in [-1, 1]; trimesh's round shapes stand along z, ours along y."""
    to_y = trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0])  # z up becomes -y
    if kind == BOX:
        return trimesh.creation.box(extents=[2, 2, 2])
    if kind == CYLINDER:
        return trimesh.creation.cylinder(radius=1, height=2, sections=SIDES, transform=to_y)
    assert kind == CONE
    mesh = trimesh.creation.cone(radius=1, height=2, sections=SIDES)
    mesh.apply_translation([0, 0, -1])
    return mesh.apply_transform(to_y)


def world_from_unit(scenes: Scenes, index: int, number: int, frame: int) -> np.ndarray:
    """4x4 map of an object in a frame."""
    matrix = np.eye(4)
    matrix[:3, :3] = scenes.axes[index, frame, number]
    matrix[:3, 3] = scenes.center[index, frame, number]
    return matrix


def scene_mesh(scenes: Scenes, index: int, frame: int) -> tuple[trimesh.Trimesh, np.ndarray]:
    """Triangles of one scene but for spheres, and the surface id of each triangle."""
    meshes, numbers = [], []

    def add(mesh, number):
        meshes.append(mesh)
        numbers.extend([number] * len(mesh.faces))

    def quad(corners):
        return trimesh.Trimesh(np.array(corners, dtype=np.float64), [[0, 1, 2], [0, 2, 3]])

    low, high = scenes.room_min[index].astype(float), scenes.room_max[index].astype(float)
    if scenes.room[index]:
        (x0, y0, z0), (x1, y1, z1) = low, high
        add(quad([[x0, 0, z0], [x1, 0, z0], [x1, 0, z1], [x0, 0, z1]]), FLOOR)
        add(quad([[x0, y0, z0], [x1, y0, z0], [x1, y0, z1], [x0, y0, z1]]), CEILING)
        for number, x in ((WALL_LEFT, x0), (WALL_LEFT + 1, x1)):
            add(quad([[x, y0, z0], [x, y1, z0], [x, y1, z1], [x, y0, z1]]), number)
        for number, z in ((WALL_LEFT + 2, z0), (WALL_LEFT + 3, z1)):
            add(quad([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]]), number)
    else:
        far = 2 * GROUND_RADIUS
        add(quad([[-far, 0, -far], [far, 0, -far], [far, 0, far], [-far, 0, far]]), FLOOR)
    for number in np.flatnonzero((scenes.kind[index] > 0) & (scenes.kind[index] != SPHERE)):
        mesh = unit_mesh(scenes.kind[index, number])
        mesh.apply_transform(world_from_unit(scenes, index, number, frame))
        add(mesh, FIRST_OBJECT + number)
    return trimesh.util.concatenate(meshes), np.array(numbers)


def trace(scenes: Scenes, index: int, frame: int, origin, directions):
    """(ray parameter, surface id) of each ray's first hit; infinite and 0 in the sky."""
    mesh, numbers = scene_mesh(scenes, index, frame)
    origins = np.broadcast_to(origin, directions.shape)
    caster = trimesh.ray.ray_triangle.RayMeshIntersector(mesh)
    places, ray, triangle = caster.intersects_location(origins, directions, multiple_hits=False)
    length = np.linalg.norm(directions, axis=1)
    depth = np.full(len(directions), np.inf)
    surface = np.zeros(len(directions), dtype=int)
    depth[ray] = np.linalg.norm(places - origins[ray], axis=1) / length[ray]
    surface[ray] = numbers[triangle]
    if not scenes.room[index]:
        places = origins + np.where(np.isfinite(depth), depth, 0.0)[:, None] * directions
        beyond = (surface == FLOOR) & (np.hypot(places[:, 0], places[:, 2]) >= GROUND_RADIUS)
        depth[beyond], surface[beyond] = np.inf, 0
    for number in np.flatnonzero(scenes.kind[index] == SPHERE):
        # A quadratic form in the world: |A^-1 (p - c)|^2 = 1.
        inverse = np.linalg.inv(world_from_unit(scenes, index, number, frame)[:3, :3])
        form = inverse.T @ inverse
        away = origins - scenes.center[index, frame, number].astype(float)
        a = np.einsum("ni,ij,nj->n", directions, form, directions)
        b = np.einsum("ni,ij,nj->n", directions, form, away)
        c = np.einsum("ni,ij,nj->n", away, form, away) - 1
        root = b * b - a * c
        t = (-b - np.sqrt(np.maximum(root, 0.0))) / a
        first = (root > 0) & (t > 0) & (t < depth)
        depth[first], surface[first] = t[first], FIRST_OBJECT + number
    return depth, surface


def exact_depth(scenes, index, frame, pixels, cam_from_world, intrinsics):
    """(depth, surface id) that the renderer finds through image points of one scene."""
    one = replace(
        scenes, **{name: value[index : index + 1] for name, value in vars(scenes).items()}
    )
    tensors = scene_tensors(one, "cpu", frames=[frame])
    origin, directions = world_rays(pixels, cam_from_world, intrinsics)
    start = tuple(torch.full((1, 1, 1), float(value)) for value in origin)
    ray = tuple(torch.from_numpy(directions[None, None, :, axis]).float() for axis in range(3))
    depth, surface = intersect(tensors, start, ray)
    return depth[0, 0].numpy().astype(np.float64), surface[0, 0].numpy()
