"""Folders in the layout that ScanNet's own exporter writes (Dai et al. 2017)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from explorer import _images
from explorer._images import natural_key
from explorer._typing import Float
from explorer.data.dataset import DatasetCard, Scene, SceneEntry, View, register
from explorer.data.readers import _common as common
from explorer.data.readers._folders import FolderDataset
from explorer.data.registration import register_depth
from explorer.errors import DatasetError

PARTS = ("color", "depth", "pose", "intrinsic")


@register(
    DatasetCard(
        id="scannet",
        title="ScanNet and folders like it: a structured-light depth camera on a tablet",
        licence="ScanNet Terms of Use, non-commercial; of folders like it, their owners'",
        homepage="http://www.scan-net.org/",
        layout="[scans/]SCENE/color/N.jpg, depth/N.png (millimetres), pose/N.txt (camera to world) "
        "and intrinsic/intrinsic_color.txt, intrinsic_depth.txt; or one SCENE",
        geometry="depth camera; poses by BundleFusion, frames without one are left out",
    )
)
class ScanNet(FolderDataset):
    """Scans; those called sceneXXXX_YY are of the place sceneXXXX."""

    levels = 2

    @classmethod
    def is_scene(cls, folder: Path) -> bool:
        """Whether the four folders are there."""
        return all((folder / part).is_dir() for part in PARTS)

    def entry_of(self, folder: Path) -> SceneEntry:
        """`split` from scannetv2_train.txt, _val.txt and _test.txt in the folders above."""
        name = folder.name
        place = re.sub(r"^(scene\d{4})_\d\d$", r"\1", name)
        return SceneEntry(name, place, self._splits.get(name))

    def read(self, entry: SceneEntry, folder: Path) -> Scene:
        """Open a scan; reads its poses."""
        return Scan(entry, folder)

    @cached_property
    def _splits(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for above in (self.root, self.root.parent, self.root.parent.parent):
            for split in ("train", "val", "test"):
                path = above / f"scannetv2_{split}.txt"
                if path.is_file():
                    found |= dict.fromkeys(path.read_text().split(), split)
        return found


class Scan(Scene):
    """Frames of one scan that have a pose, in metres."""

    def __init__(self, entry: SceneEntry, folder: Path) -> None:
        self.folder = folder
        self.color = _matrix(folder, "color")
        self.depth = _matrix(folder, "depth")
        colors = (
            path
            for path in (folder / "color").iterdir()
            if path.suffix.lower() in _images.IMAGE_SUFFIXES
        )
        self.pictures, self.poses = [], []
        for path in sorted(colors, key=lambda path: natural_key(path.name)):
            pose = common.read_matrix(folder / "pose" / f"{path.stem}.txt")
            if np.isfinite(pose).all():
                self.pictures.append(path)
                self.poses.append(common.inverse_pose(pose, f"frame {path.stem} of {entry.name}"))
        if not self.pictures:
            raise DatasetError(f"{folder} has no frame with a picture and a finite pose")
        self.positions = np.array([_number(path) for path in self.pictures])
        self._size: tuple[int, int] | None = None
        super().__init__(
            entry,
            dataset="scannet",
            frames=len(self.pictures),
            geometry="depth camera",
            unit="m",
        )

    def source(self, frame: int) -> bytes:
        """The colour picture."""
        return common.read_bytes(self.pictures[frame])

    def seconds(self, frames: Sequence[int]) -> Float[np.ndarray, " T"]:
        """After the numbers in the files' names: frames without a pose leave gaps."""
        return np.asarray(self.positions[list(frames)] - self.positions[0], np.float64) / self.fps

    def view(self, frame: int) -> View:
        """Pose and depth; the depth camera's map is carried into the colour camera."""
        raw = common.read_depth(self.folder / "depth" / f"{self.pictures[frame].stem}.png")
        size = self.size()
        _check_size(f"intrinsic_color.txt of {self.name}", self.color, size)
        _check_size(f"intrinsic_depth.txt of {self.name}", self.depth, raw.shape)
        depth = register_depth(raw / 1000, self.depth, self.color, np.eye(4), size=size)
        return View(self.color, self.poses[frame], depth)

    def size(self) -> tuple[int, int]:
        """(height, width) of the pictures."""
        if self._size is None:
            path = self.pictures[0]
            self._size = _images.header_size(path.name, common.read_bytes(path))
        return self._size


def _matrix(folder: Path, camera: str) -> Float[np.ndarray, "3 3"]:
    """K of one camera; ScanNet's has pixel centres at whole numbers.

    Raises:
        DatasetError: it is missing, or the cameras do not share one frame.
    """
    found = common.read_matrix(folder / "intrinsic" / f"intrinsic_{camera}.txt")
    extrinsic = folder / "intrinsic" / f"extrinsic_{camera}.txt"
    if extrinsic.is_file() and np.abs(common.read_matrix(extrinsic) - np.eye(4)).max() > 1e-3:
        raise DatasetError(
            f"{extrinsic} is not the identity: every published scan's is, and which way another "
            "would turn is not documented; register the depth maps first and write the identity"
        )
    return common.intrinsics(found[0, 0], found[1, 1], found[0, 2], found[1, 2], centers=0.0)


def _check_size(what: str, matrix: Float[np.ndarray, "3 3"], size: tuple[int, ...]) -> None:
    """The exporter can make pictures smaller, and leaves their intrinsics as they are.

    Raises:
        DatasetError: a principal point is far from the middle of a picture.
    """
    height, width = size
    off = np.abs(matrix[:2, 2] / [width, height] - 0.5)
    if off.max() > 0.25:
        raise DatasetError(
            f"{what} has its principal point at {matrix[0, 2]:.0f}, {matrix[1, 2]:.0f}, and the "
            f"pictures are {width}x{height}: it is of pictures of another size; scale it"
        )


def _number(path: Path) -> int:
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else 0
