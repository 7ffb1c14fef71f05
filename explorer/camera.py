"""Pinhole cameras, in the one convention of this project.

OpenCV axes (x right, y down, z forward); extrinsics are `cam_from_world`; intrinsics are in pixels
of the image they are stored with; the centre of the first pixel is at (0.5, 0.5); depth is z-depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer._typing import Float, Int


@dataclass(frozen=True)
class Cameras:
    """S pinhole cameras that look at one world.

    Attributes:
        cam_from_world: (S, 3, 4) rigid transforms [R|t], x_cam = R x_world + t.
        intrinsics: (S, 3, 3) matrices K in pixels of an image of `size`.
        size: (height, width) of that image.
    """

    cam_from_world: Float[np.ndarray, "S 3 4"]
    intrinsics: Float[np.ndarray, "S 3 3"]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.cam_from_world)

    @property
    def centers(self) -> Float[np.ndarray, "S 3"]:
        """(S, 3) camera centres in the world frame, -R^T t."""
        rotation, translation = self.cam_from_world[:, :, :3], self.cam_from_world[:, :, 3]
        return np.asarray(-np.einsum("sji,sj->si", rotation, translation))

    @property
    def world_from_cam(self) -> Float[np.ndarray, "S 3 4"]:
        """(S, 3, 4) inverse transforms [R^T | centre]."""
        rotation = np.swapaxes(self.cam_from_world[:, :, :3], 1, 2)
        return np.concatenate([rotation, self.centers[:, :, None]], axis=2)

    def select(self, index: Int[np.ndarray, " K"] | list[int]) -> Cameras:
        """The cameras at the given positions, in that order."""
        picked = np.asarray(index, dtype=np.int64)
        return Cameras(self.cam_from_world[picked], self.intrinsics[picked], self.size)

    def resized(self, height: int, width: int) -> Cameras:
        """The same cameras for images stretched to (height, width)."""
        scale = np.array([width / self.size[1], height / self.size[0], 1.0])
        intrinsics = (self.intrinsics * scale[None, :, None]).astype(self.intrinsics.dtype)
        return Cameras(self.cam_from_world, intrinsics, (height, width))

    def relative_to_first(self) -> Cameras:
        """The same cameras in the frame of the first one, which becomes the identity."""
        rotation0, translation0 = self.cam_from_world[0, :, :3], self.cam_from_world[0, :, 3]
        rotation = self.cam_from_world[:, :, :3] @ rotation0.T
        translation = self.cam_from_world[:, :, 3] - rotation @ translation0
        moved = np.concatenate([rotation, translation[:, :, None]], axis=2)
        return Cameras(moved.astype(self.cam_from_world.dtype), self.intrinsics, self.size)

    def scaled(self, factor: float) -> Cameras:
        """The same cameras with all lengths multiplied by `factor`."""
        moved = self.cam_from_world.copy()
        moved[:, :, 3] *= factor
        return Cameras(moved, self.intrinsics, self.size)


def pixel_centers(height: int, width: int) -> Float[np.ndarray, "H W 2"]:
    """(H, W, 2) float64 image coordinates (x, y) of all pixel centres; the first is (0.5, 0.5)."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x, y], axis=-1)


def unproject(depth: Float[np.ndarray, "S H W"], cameras: Cameras) -> Float[np.ndarray, "S H W 3"]:
    """World points of depth maps.

    Args:
        depth: (S, H, W) z-depth; the cameras' `size` must be (H, W).
        cameras: S cameras.

    Returns:
        (S, H, W, 3) points in the cameras' world frame, in depth's dtype.
    """
    count, height, width = depth.shape
    pixels = pixel_centers(height, width)
    homogeneous = np.concatenate([pixels, np.ones((height, width, 1))], axis=-1)
    inverse = np.linalg.inv(cameras.intrinsics.astype(np.float64))
    pose = cameras.world_from_cam.astype(np.float64)
    # Rotation and intrinsics in one product: a pixel's ray in the world, of z-depth 1.
    rays = homogeneous.reshape(-1, 3) @ np.swapaxes(pose[:, :, :3] @ inverse, 1, 2)
    world = rays * depth.reshape(count, -1, 1) + pose[:, None, :, 3]
    return world.astype(depth.dtype).reshape(count, height, width, 3)


def project(
    points: Float[np.ndarray, "N 3"],
    cam_from_world: Float[np.ndarray, "3 4"],
    intrinsics: Float[np.ndarray, "3 3"],
) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, " N"]]:
    """Image coordinates (N, 2) and z-depths (N,) of world points; points behind have depth <= 0."""
    in_camera = points @ cam_from_world[:, :3].T + cam_from_world[:, 3]
    z = in_camera[:, 2]
    safe = np.where(np.abs(z) > 1e-9, z, 1e-9)
    pixels = in_camera[:, :2] / safe[:, None] * intrinsics[[0, 1], [0, 1]] + intrinsics[:2, 2]
    return pixels, z
