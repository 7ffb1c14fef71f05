"""COLMAP's models on disk, read without COLMAP: cameras, images and points, as text or binary.

Formats as COLMAP's documentation states them. Its pixel centres are at +0.5, its poses world to
camera with OpenCV axes, like everything here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from explorer._typing import Float, Int
from explorer.data.readers import _common as common
from explorer.errors import DatasetError

MODELS = (
    ("SIMPLE_PINHOLE", 3), ("PINHOLE", 4), ("SIMPLE_RADIAL", 4), ("RADIAL", 5), ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8), ("FULL_OPENCV", 12), ("FOV", 5), ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5), ("THIN_PRISM_FISHEYE", 12),
)  # fmt: skip
"""(name, number of parameters) by the number that the binary files use."""

FILES = ("cameras", "images", "points3D")


@dataclass(frozen=True)
class ModelCamera:
    """One camera: name of its model, (height, width) of its pictures, the model's parameters."""

    model: str
    size: tuple[int, int]
    params: tuple[float, ...]

    def pinhole(self) -> tuple[Float[np.ndarray, "3 3"], tuple[float, float, float, float, float]]:
        """(K, (k1, k2, p1, p2, k3)).

        Raises:
            DatasetError: the model is none of a pinhole with at most four distortion numbers.
        """
        given = self.params
        if self.model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"):
            focal, cx, cy, *radial = given
            k1, k2 = (*radial, 0.0, 0.0)[:2]
            return common.intrinsics(focal, focal, cx, cy), (k1, k2, 0.0, 0.0, 0.0)
        if self.model in ("PINHOLE", "OPENCV"):
            fx, fy, cx, cy, *rest = given
            k1, k2, p1, p2 = (*rest, 0.0, 0.0, 0.0, 0.0)[:4]
            return common.intrinsics(fx, fy, cx, cy), (k1, k2, p1, p2, 0.0)
        raise DatasetError(
            f"COLMAP's camera model {self.model} is not supported: undistort the pictures first "
            "(colmap image_undistorter)"
        )


@dataclass(frozen=True)
class ModelImage:
    """One registered picture.

    Attributes:
        name: of its file.
        camera: id of its camera.
        cam_from_world: (3, 4).
        points: (N,) rows of the model's points that were observed in it.
    """

    name: str
    camera: int
    cam_from_world: Float[np.ndarray, "3 4"]
    points: Int[np.ndarray, " N"]


@dataclass(frozen=True)
class Model:
    """A sparse model: cameras by id, images by name, (P, 3) points in its own unit."""

    cameras: dict[int, ModelCamera]
    images: dict[str, ModelImage]
    points: Float[np.ndarray, "P 3"]


def find_model(folder: Path) -> Path | None:
    """Where a model lies below a scene's folder, in the places that are usual, or None."""
    for place in ("colmap/sparse/0", "sparse/0", "colmap/sparse", "sparse", "colmap"):
        if any((folder / place / f"{FILES[1]}.{ending}").is_file() for ending in ("bin", "txt")):
            return folder / place
    return None


def read_model(folder: Path) -> Model:
    """Read the binary files of a folder, or the text files where there are no binary ones.

    Raises:
        DatasetError: a file is missing, cut off, or something else.
    """
    binary = (folder / f"{FILES[1]}.bin").is_file()
    try:
        return _binary(folder) if binary else _text(folder)
    except (struct.error, ValueError, IndexError, KeyError, OverflowError) as error:
        raise DatasetError(
            f"the COLMAP model in {folder} is cut off or damaged ({error!r}): get it again"
        ) from error


class _Bytes:
    """Numbers out of a binary file, one after the other."""

    def __init__(self, path: Path) -> None:
        self.data = common.read_bytes(path)
        self.at = 0

    def take(self, layout: str) -> tuple[int | float, ...]:
        """The next numbers, little-endian, in the letters of the module struct."""
        found = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return found

    def count(self, least: int) -> int:
        """A number of items of at least so many bytes; more than the file can hold are none."""
        number = int(self.take("Q")[0])
        if number * least > len(self.data) - self.at:
            raise ValueError(f"{number} items announced")
        return number

    def word(self) -> str:
        """The next word, which ends with a zero byte."""
        end = self.data.index(b"\0", self.at)
        found = self.data[self.at : end].decode("utf-8", errors="replace")
        self.at = end + 1
        return found

    def rows(self, count: int, kind: np.dtype) -> np.ndarray:
        """The next rows of a record."""
        found = np.frombuffer(self.data, kind, count, self.at)
        self.at += count * kind.itemsize
        return found


def _binary(folder: Path) -> Model:
    file = _Bytes(folder / "cameras.bin")
    cameras = {}
    for _ in range(file.count(24)):
        number, kind, width, height = (int(each) for each in file.take("iiQQ"))
        name, parameters = MODELS[kind]
        params = tuple(float(each) for each in file.take("d" * parameters))
        cameras[number] = ModelCamera(name, (height, width), params)

    file = _Bytes(folder / "points3D.bin")
    ids, points = [], []
    for _ in range(file.count(43)):
        point, x, y, z, *_ = file.take("QdddBBBd")
        ids.append(int(point))
        points.append((x, y, z))
        track = file.count(8)
        file.at += 8 * track
    row_of = {number: row for row, number in enumerate(ids)}

    file = _Bytes(folder / "images.bin")
    observed = np.dtype([("xy", "<f8", 2), ("point", "<i8")])
    images = {}
    for _ in range(file.count(64)):
        _, *numbers = file.take("idddddddi")
        name = file.word()
        seen = file.rows(file.count(observed.itemsize), observed)["point"].tolist()
        images[name] = _image(name, int(numbers[7]), [float(n) for n in numbers[:7]], seen, row_of)
    return Model(cameras, images, np.array(points, dtype=np.float64).reshape(-1, 3))


def _text(folder: Path) -> Model:
    cameras = {}
    for line in _lines(folder / "cameras.txt"):
        number, name, width, height, *params = line.split()
        size = (int(height), int(width))
        cameras[int(number)] = ModelCamera(name, size, tuple(float(each) for each in params))

    rows = [line.split() for line in _lines(folder / "points3D.txt")]
    points = np.array([[float(each) for each in row[1:4]] for row in rows], dtype=np.float64)
    row_of = {int(row[0]): number for number, row in enumerate(rows)}

    images = {}
    lines = _lines(folder / "images.txt", blank=True)
    for head, body in zip(lines[::2], lines[1::2], strict=True):
        _, *numbers, camera, name = head.split(maxsplit=9)
        seen = [int(each) for each in body.split()[2::3]]
        pose = [float(each) for each in numbers]
        images[name] = _image(name, int(camera), pose, seen, row_of)
    return Model(cameras, images, points.reshape(-1, 3))


def _lines(path: Path, *, blank: bool = False) -> list[str]:
    """Lines without comments; a picture without observations has an empty one."""
    text = common.read_bytes(path).decode("utf-8", errors="replace")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return lines if blank else [line for line in lines if line.strip()]


def _image(
    name: str, camera: int, pose: list[float], seen: list[int], row_of: dict[int, int]
) -> ModelImage:
    matrix = np.eye(3, 4)
    matrix[:, :3] = common.rotation_of(np.array(pose[:4]))
    matrix[:, 3] = pose[4:7]
    rows = sorted({row_of[point] for point in seen if point in row_of})
    checked = common.checked_pose(matrix, f"picture {name} of the COLMAP model")
    return ModelImage(name, camera, checked, np.array(rows, dtype=np.int64))
