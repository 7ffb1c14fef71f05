"""One `.npz` file with pictures, depth, intrinsics and poses of a recording."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from explorer import _images
from explorer._typing import Float, UInt8
from explorer.data.dataset import Dataset, DatasetCard, Scene, SceneEntry, View, register
from explorer.data.readers import _common as common
from explorer.errors import DatasetError

PICTURES, MATRIX, POSES = "rgb", "K", "cam2world"
DEPTHS = ("depth_mm", "depth")


@register(
    DatasetCard(
        id="npz",
        title="One .npz file: pictures, registered depth, intrinsics, poses",
        licence="its owner's",
        homepage="https://numpy.org/doc/stable/reference/generated/numpy.savez.html",
        layout="FILE.npz with rgb uint8 (T,H,W,3), depth_mm integers or depth in metres (T,H,W), 0 "
        "where unknown, K (3,3) or (T,3,3) in pixels whose first centre is at 0, cam2world "
        "(T,4,4) or (T,3,4) with OpenCV axes; optionally frame (T), numbers at 30 a second, and "
        "place, a string",
        geometry="whatever its owner put in, taken as a depth camera's",
        verified="a clip of 7-Scenes RedKitchen, 81 frames of 320x240",
    )
)
class Arrays(Dataset):
    """A file is one scene, named after it; its place is `place`, else its name."""

    @classmethod
    def finds(cls, root: Path) -> bool:
        """Whether it is such a file, by its name and the names inside."""
        if root.suffix.lower() != ".npz" or not root.is_file():
            return False
        try:
            with zipfile.ZipFile(root) as archive:
                names = {name.removesuffix(".npy") for name in archive.namelist()}
        except (zipfile.BadZipFile, OSError):
            return True  # named like one: opening it says what is wrong
        return {PICTURES, MATRIX, POSES} <= names

    def listing(self) -> tuple[SceneEntry, ...]:
        """The one scene."""
        name = self.root.stem
        place = self._read(("place",)).get("place")
        return (SceneEntry(name, name if place is None else str(place)),)

    def open(self, entry: SceneEntry) -> Scene:
        """Read the file; its arrays stay in memory."""
        names = (PICTURES, *DEPTHS, MATRIX, POSES, "frame")
        return Recording(entry, self.root, self._read(names))

    def _read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        try:
            # numpy leaves a damaged file open where it was given its name.
            with self.root.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in names if name in arrays.files}
        except (zipfile.BadZipFile, OSError, ValueError, EOFError, KeyError) as error:
            raise DatasetError(
                f"{self.root} cannot be read ({error}): it is cut off or damaged"
            ) from error


class Recording(Scene):
    """The frames of one file, in metres."""

    def __init__(self, entry: SceneEntry, path: Path, arrays: dict[str, np.ndarray]) -> None:
        for name in (PICTURES, MATRIX, POSES):
            if name not in arrays:
                raise DatasetError(f"{path} has no array {name!r}")
        self.rgb, count = arrays[PICTURES], len(arrays[PICTURES])
        height, width = self.rgb.shape[1:3] if self.rgb.ndim == 4 else (0, 0)
        _check(path, PICTURES, self.rgb, "u", (count, height, width, 3))
        if self.rgb.dtype != np.uint8 or self.rgb.size == 0:
            raise DatasetError(
                f"rgb in {path} must be uint8 and hold frames; it is {self.rgb.dtype}"
            )
        self.depth, self.scale = None, 1.0
        for name, kinds, scale in ((DEPTHS[0], "uif", 0.001), (DEPTHS[1], "f", 1.0)):
            if name in arrays and self.depth is None:
                _check(path, name, arrays[name], kinds, (count, height, width))
                self.depth, self.scale = arrays[name], scale
        matrices = np.asarray(arrays[MATRIX], dtype=np.float64)
        if matrices.shape == (3, 3):
            matrices = np.tile(matrices, (count, 1, 1))
        _check(path, MATRIX, matrices, "f", (count, 3, 3))
        self.matrices = matrices
        poses = np.asarray(arrays[POSES], dtype=np.float64)
        _check(path, POSES, poses[:, :3] if poses.ndim == 3 else poses, "f", (count, 3, 4))
        self.poses = poses
        self.numbers = np.arange(count)
        if "frame" in arrays:
            _check(path, "frame", arrays["frame"], "ui", (count,))
            self.numbers = arrays["frame"].astype(np.int64)
        steps = np.diff(self.numbers)
        apart = float(np.median(steps)) if len(steps) and (steps > 0).all() else 1.0
        super().__init__(
            entry,
            dataset="npz",
            frames=count,
            geometry=None if self.depth is None else "depth camera",
            unit="m",
            fps=_images.FPS / apart,
        )

    def source(self, frame: int) -> bytes:
        """The picture's pixels, row by row."""
        return self.rgb[frame].tobytes()

    def picture(self, frame: int, data: bytes) -> UInt8[np.ndarray, "H W 3"]:
        """The picture."""
        return np.frombuffer(data, dtype=np.uint8).reshape(self.rgb.shape[1:])

    def seconds(self, frames: Sequence[int]) -> Float[np.ndarray, " T"]:
        """After `frame`, at 30 a second."""
        return np.asarray(self.numbers[list(frames)] - self.numbers[0], np.float64) / _images.FPS

    def view(self, frame: int) -> View:
        """Camera and depth."""
        matrix = self.matrices[frame].copy()
        matrix[:2, 2] += 0.5  # its first pixel's centre is at (0, 0)
        pose = common.inverse_pose(self.poses[frame], f"frame {frame} of {self.name}")
        if self.depth is None:
            return View(matrix, pose)
        return View(matrix, pose, self.depth[frame].astype(np.float32) * np.float32(self.scale))


def _check(path: Path, name: str, array: np.ndarray, kinds: str, shape: tuple[int, ...]) -> None:
    if array.dtype.kind not in kinds or array.shape != shape:
        raise DatasetError(
            f"{name} in {path} is {array.dtype} {array.shape}; expected shape {shape} of kind "
            f"{'/'.join({'u': 'unsigned', 'i': 'integer', 'f': 'float'}[kind] for kind in kinds)}"
        )
