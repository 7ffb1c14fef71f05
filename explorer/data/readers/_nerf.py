"""`transforms.json`: cameras as NeRF's followers write them (instant-ngp, nerfstudio)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from explorer import _images
from explorer._images import natural_key
from explorer._typing import Float
from explorer.data.lens import Lens
from explorer.data.readers import _common as common
from explorer.errors import DatasetError

NUMBERS = ("fl_x", "fl_y", "cx", "cy", "camera_angle_x", "camera_angle_y")
PINHOLES = ("", "OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE")


@dataclass(frozen=True)
class NerfFrame:
    """One entry of `frames`.

    Attributes:
        name: `file_path` as it is written.
        cam_from_world: (3, 4), OpenCV axes.
        numbers: of its camera: fl_x, fl_y, cx, cy in pixels of an image of `size`, or angles.
        distortion: (k1, k2, p1, p2, k3).
        size: (height, width); None where the file does not say it.
        depth: path of its depth map, None without.
    """

    name: str
    cam_from_world: Float[np.ndarray, "3 4"]
    numbers: dict[str, float]
    distortion: tuple[float, float, float, float, float]
    size: tuple[int, int] | None
    depth: str | None

    def lens(self, size: tuple[int, int]) -> Lens:
        """The camera for pictures that were resized to (height, width).

        Raises:
            DatasetError: neither focal lengths nor angles of view are known.
        """
        height, width = self.size or size
        fx = self._focal("x", width) or self._focal("y", height)
        fy = self._focal("y", height) or fx
        if fx is None or fy is None:
            raise DatasetError(f"{self.name} has no camera: neither fl_x nor camera_angle_x")
        cx, cy = self.numbers.get("cx", width / 2), self.numbers.get("cy", height / 2)
        matrix = common.scaled(common.intrinsics(fx, fy, cx, cy), size[1] / width, size[0] / height)
        return Lens(matrix, self.distortion, size)

    def _focal(self, axis: str, extent: int) -> float | None:
        if f"fl_{axis}" in self.numbers:
            return self.numbers[f"fl_{axis}"]
        angle = self.numbers.get(f"camera_angle_{axis}")
        return None if angle is None else 0.5 * extent / math.tan(0.5 * angle)


def read_transforms(path: Path) -> tuple[list[NerfFrame], dict[str, Any]]:
    """(frames in natural order of their file names, the file's other entries).

    Raises:
        DatasetError: the file is missing, damaged, of a camera that is no pinhole, or has a pose
            that is none.
    """
    given = common.read_json(path)
    if not isinstance(given, dict) or not isinstance(given.get("frames"), list):
        raise DatasetError(f'{path} has no list "frames": it is no transforms.json')
    try:
        frames = [_frame(path, {**given, **each}) for each in given["frames"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path} is damaged or incomplete: {error!r}") from error
    if not frames:
        raise DatasetError(f"{path} lists no frames")
    return sorted(frames, key=lambda frame: natural_key(frame.name)), given


def image_path(folder: Path, name: str) -> Path:
    """The file that a frame names, which may leave out its ending.

    Raises:
        DatasetError: there is none.
    """
    plain = folder / name
    for candidate in (plain, *(Path(f"{plain}{ending}") for ending in _images.IMAGE_SUFFIXES)):
        if candidate.is_file():
            return candidate
    raise DatasetError(f"{plain} is missing: the download or unpacking is incomplete; get it again")


def _frame(path: Path, given: dict[str, Any]) -> NerfFrame:
    name = str(given["file_path"])
    model = str(given.get("camera_model") or "")
    if model not in PINHOLES or given.get("is_fisheye"):
        raise DatasetError(
            f"{path} is of a camera {model or 'fisheye'}: only pinholes with distortion k1, k2, "
            "p1, p2, k3 are supported; undistort the pictures first"
        )
    matrix = np.array(given["transform_matrix"], dtype=np.float64)
    if matrix.shape not in ((4, 4), (3, 4)):
        raise DatasetError(f"{name} in {path} has a pose of shape {matrix.shape}")
    opencv = matrix[:3] @ common.OPENCV_FROM_OPENGL
    pose = common.inverse_pose(opencv, f"{name} in {path}")
    width, height = given.get("w"), given.get("h")
    size = None if width is None or height is None else (int(height), int(width))
    k1, k2, p1, p2, k3 = (float(given.get(key) or 0.0) for key in ("k1", "k2", "p1", "p2", "k3"))
    if given.get("k4"):
        raise DatasetError(f"{path} has a distortion k4, which is not supported: undistort first")
    depth = given.get("depth_file_path")
    return NerfFrame(
        name=name,
        cam_from_world=pose,
        numbers={key: float(given[key]) for key in NUMBERS if given.get(key) is not None},
        distortion=(k1, k2, p1, p2, k3),
        size=size,
        depth=None if depth is None else str(depth),
    )
