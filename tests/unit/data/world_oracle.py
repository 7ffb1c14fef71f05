"""An independent ray caster for the world's scenes: trimesh for planes and boxes, in float64."""

from __future__ import annotations

import numpy as np
import trimesh

from explorer.data.world.scene import BOX, CEILING, FIRST_OBJECT, FLOOR, SPHERE, WALL_LEFT, Scenes

GROUND_RADIUS = 12.0


def world_rays(pixels, cam_from_world, intrinsics):
    """(origin (3,), directions (N, 3)) through image points, one unit of z-depth long."""
    pose = np.asarray(cam_from_world, dtype=np.float64)
    homogeneous = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)
    in_camera = homogeneous @ np.linalg.inv(np.asarray(intrinsics, dtype=np.float64)).T
    return -pose[:, :3].T @ pose[:, 3], in_camera @ pose[:, :3]


def scene_mesh(scenes: Scenes, index: int) -> tuple[trimesh.Trimesh, np.ndarray]:
    """Triangles of the planes and boxes of one scene, and the surface id of each triangle."""
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
    for number in np.flatnonzero(scenes.kind[index] == BOX):
        turn = trimesh.transformations.rotation_matrix(scenes.yaw[index, number], [0, 1, 0])
        turn[:3, 3] = scenes.center[index, number]
        extents = 2.0 * scenes.half[index, number].astype(float)
        add(trimesh.creation.box(extents=extents, transform=turn), FIRST_OBJECT + number)
    return trimesh.util.concatenate(meshes), np.array(numbers)


def trace(scenes: Scenes, index: int, origin, directions):
    """(ray parameter, surface id) of each ray's first hit; infinite and 0 in the sky."""
    mesh, numbers = scene_mesh(scenes, index)
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
    unit = directions / length[:, None]
    for number in np.flatnonzero(scenes.kind[index] == SPHERE):
        # The point of closest approach, and half the chord before it.
        away = scenes.center[index, number].astype(float) - origins
        along = (away * unit).sum(axis=1)
        miss = np.linalg.norm(away - along[:, None] * unit, axis=1)
        chord = scenes.half[index, number, 0].astype(float) ** 2 - miss**2
        t = (along - np.sqrt(np.maximum(chord, 0.0))) / length
        first = (chord > 0) & (t > 0) & (t < depth)
        depth[first], surface[first] = t[first], FIRST_OBJECT + number
    return depth, surface
