"""What readers share: files with typed errors, matrices and poses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from explorer import _images
from explorer._typing import Float, UInt8
from explorer.errors import ClipError, DatasetError

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""From a camera frame of x right, y up, z backward into x right, y down, z forward; and back."""

_ROTATION_TOLERANCE = 1e-2


def read_bytes(path: Path) -> bytes:
    """Content of a file.

    Raises:
        DatasetError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path} is missing: the download or unpacking is incomplete; get it again"
        ) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): check it") from error


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        DatasetError: it is missing, cannot be read, or is no JSON.
    """
    return parse_json(path, read_bytes(path))


def parse_json(path: Path, data: bytes) -> Any:
    """Content of a JSON file that has been read; raises DatasetError where it is none."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON ({error}): it is damaged; get it again") from error


def read_depth(path: Path) -> Float[np.ndarray, "h w"]:
    """Values of a one-channel 16-bit PNG, as float32.

    Raises:
        DatasetError: the file is missing, cut off, or no 16-bit PNG of one channel.
    """
    return read_png16(path).astype(np.float32)


def read_png16(path: Path) -> np.ndarray:
    """(h, w) uint16 values of a one-channel PNG; raises DatasetError like `read_depth`."""
    import cv2

    data = read_bytes(path)
    try:
        _images.header_size(path.name, data)
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except (ClipError, cv2.error) as error:
        raise DatasetError(f"the depth map {path} is damaged ({error})") from error
    if image is None:
        raise DatasetError(f"the depth map {path} is damaged: get it again")
    if image.dtype != np.uint16 or image.ndim != 2:
        raise DatasetError(
            f"{path} is no depth map: expected one channel of 16 bits, found {image.dtype} "
            f"{image.shape}"
        )
    return np.asarray(image)


def read_mask(path: Path) -> UInt8[np.ndarray, "h w"]:
    """Values of an image of one channel of 8 bits; raises DatasetError where it is damaged."""
    import cv2

    image = cv2.imdecode(np.frombuffer(read_bytes(path), dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise DatasetError(f"the mask {path} is damaged: get it again")
    return np.asarray(image, dtype=np.uint8)


def read_matrix(path: Path) -> Float[np.ndarray, "n m"]:
    """A 3x3 or 4x4 matrix in a text file, numbers of a row divided by spaces; may hold NaN or inf.

    Raises:
        DatasetError: the file is missing, or holds something else.
    """
    text = read_bytes(path).decode("utf-8", errors="replace")
    try:
        rows = [[float(number) for number in line.split()] for line in text.splitlines() if line]
        found = np.array([row for row in rows if row], dtype=np.float64)
    except ValueError as error:
        raise DatasetError(f"{path} holds no matrix ({error})") from error
    if found.shape not in ((3, 3), (4, 4)):
        raise DatasetError(f"{path} holds no 3x3 or 4x4 matrix but one of {found.shape}")
    return found


def inverse_pose(world_from_cam: Float[np.ndarray, "n 4"], what: str) -> Float[np.ndarray, "3 4"]:
    """`cam_from_world` of a camera-to-world matrix (3x4 or 4x4), its rotation made exact.

    Args:
        world_from_cam: OpenCV axes.
        what: which pose it is, for the error.

    Raises:
        DatasetError: a number is not finite, or the rotation is none.
    """
    rotation, center = checked_rotation(world_from_cam[:3], what)
    return np.concatenate([rotation.T, -rotation.T @ center[:, None]], axis=1)


def checked_pose(cam_from_world: Float[np.ndarray, "n 4"], what: str) -> Float[np.ndarray, "3 4"]:
    """A world-to-camera matrix, its rotation made exact; raises like `inverse_pose`."""
    rotation, translation = checked_rotation(cam_from_world[:3], what)
    return np.concatenate([rotation, translation[:, None]], axis=1)


def checked_rotation(
    matrix: Float[np.ndarray, "3 4"], what: str
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, " 3"]]:
    """The nearest rotation (by singular values) to a matrix's left part, and its last column."""
    matrix = np.asarray(matrix, dtype=np.float64)
    if not np.isfinite(matrix).all():
        raise DatasetError(f"{what} has no pose: its matrix holds NaN or infinity")
    left, stretch, right = np.linalg.svd(matrix[:, :3])
    if np.abs(stretch - 1).max() > _ROTATION_TOLERANCE or np.linalg.det(left @ right) < 0:
        raise DatasetError(
            f"the pose of {what} is no rigid motion: its matrix stretches space by "
            f"{stretch.min():.3g} to {stretch.max():.3g}, or mirrors it"
        )
    return left @ right, matrix[:, 3]


def rotation_of(quaternion: Float[np.ndarray, " 4"]) -> Float[np.ndarray, "3 3"]:
    """Rotation matrix of a quaternion (w, x, y, z) of any length but 0."""
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def intrinsics(
    fx: float, fy: float, cx: float, cy: float, *, centers: float = 0.5
) -> Float[np.ndarray, "3 3"]:
    """(3, 3) K with pixel centres at +0.5, from numbers whose first pixel is at `centers`."""
    shift = 0.5 - centers
    return np.array([[fx, 0, cx + shift], [0, fy, cy + shift], [0, 0, 1]], dtype=np.float64)


def scaled(matrix: Float[np.ndarray, "3 3"], across: float, down: float) -> np.ndarray:
    """K for pictures stretched by these factors."""
    return np.diag([across, down, 1.0]) @ matrix
