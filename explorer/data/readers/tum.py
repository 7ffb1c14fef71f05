"""TUM RGB-D (Sturm et al. 2012): Kinect recordings with poses from a motion capture system.

Colour, depth and pose have times of their own. Frames are the colour pictures that have a depth map
within `MAX_GAP` seconds and poses on both sides; the pose is interpolated to the picture's time,
and the depth map, which was taken at another moment, is moved into the camera of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from explorer._typing import Float, UInt8
from explorer.data.dataset import DatasetCard, Scene, SceneEntry, View, register
from explorer.data.readers import _common as common
from explorer.data.readers._folders import FolderDataset
from explorer.data.readers._trajectory import Trajectory
from explorer.data.readers._tum_camera import calibration, freiburg
from explorer.data.registration import register_depth
from explorer.errors import DatasetError

MAX_GAP = 0.02  # seconds between a picture and its depth map; the dataset's own tool has the same
MAX_POSE_GAP = 0.1  # between the poses on both sides
DEPTH_FACTOR = 5000.0
PLACES = {1: "freiburg office", 2: "freiburg hall", 3: "freiburg hall"}


@register(
    DatasetCard(
        id="tum",
        title="TUM RGB-D: Kinect recordings with motion-capture poses",
        licence="CC BY 4.0",
        homepage="https://cvg.cit.tum.de/data/datasets/rgbd-dataset",
        layout="rgbd_dataset_freiburgN_NAME/rgb.txt, depth.txt, groundtruth.txt, rgb/ and depth/; "
        "recordings of another camera have a calibration.json beside them",
        geometry="depth camera, already registered to the colour camera; poses by motion capture",
    )
)
class Tum(FolderDataset):
    """Recordings; all of one hall or office are of one place."""

    @classmethod
    def is_scene(cls, folder: Path) -> bool:
        """Whether the three lists are there."""
        lists = ("rgb.txt", "depth.txt", "groundtruth.txt")
        return all((folder / name).is_file() for name in lists)

    def entry_of(self, folder: Path) -> SceneEntry:
        """freiburg1 is one office; freiburg2 and freiburg3 were recorded in one hall."""
        number = freiburg(folder)
        return SceneEntry(folder.name, PLACES.get(number or 0, folder.name))

    def read(self, entry: SceneEntry, folder: Path) -> Scene:
        """Open a recording; reads its three lists."""
        return Recording(entry, folder)


class Recording(Scene):
    """Pictures that have depth and pose, in metres, without the lens's distortion."""

    def __init__(self, entry: SceneEntry, folder: Path) -> None:
        self.folder = folder
        self.calibration = calibration(folder)
        colors, depths = _list(folder / "rgb.txt"), _list(folder / "depth.txt")
        self.trajectory = Trajectory.read(folder / "groundtruth.txt", max_gap=MAX_POSE_GAP)
        self.pairs = _pairs(folder, colors, depths, self.trajectory)
        self.times = np.array([color for color, _, _, _ in self.pairs])
        gaps = np.diff(self.times)
        fps = float(1.0 / np.median(gaps)) if len(gaps) else 30.0
        super().__init__(
            entry,
            dataset="tum",
            frames=len(self.pairs),
            geometry="depth camera",
            unit="m",
            fps=fps,
            treatment=self.calibration.color.treatment,
        )

    def source(self, frame: int) -> bytes:
        """The colour picture, as it was taken."""
        return common.read_bytes(self.folder / self.pairs[frame][2])

    def picture(self, frame: int, data: bytes) -> UInt8[np.ndarray, "H W 3"]:
        """Without distortion."""
        image = super().picture(frame, data)
        lens = self.calibration.color
        if image.shape[:2] != lens.size:
            raise DatasetError(
                f"{self.pairs[frame][2]} of {self.name} is {image.shape[1]}x{image.shape[0]}, its "
                f"camera is known for {lens.size[1]}x{lens.size[0]}"
            )
        return lens.picture(image)

    def seconds(self, frames: Sequence[int]) -> Float[np.ndarray, " T"]:
        """As recorded."""
        return np.asarray(self.times[list(frames)] - self.times[0], dtype=np.float64)

    def view(self, frame: int) -> View:
        """Pose at the picture's time, and the depth map moved there from its own."""
        color_time, depth_time, _, name = self.pairs[frame]
        color, depth, color_from_depth = self.calibration
        raw = common.read_depth(self.folder / name)
        if raw.shape != depth.size:
            raise DatasetError(f"{name} of {self.name} has shape {raw.shape}, not {depth.size}")
        pose = self.trajectory.at(color_time)
        between = pose @ np.linalg.inv(self.trajectory.at(depth_time)) @ color_from_depth
        metres = depth.depth((raw / DEPTH_FACTOR).astype(np.float32))
        return View(
            intrinsics=color.intrinsics,
            cam_from_world=pose[:3],
            depth=register_depth(
                metres, depth.intrinsics, color.intrinsics, between, size=color.size
            ),
        )


def _list(path: Path) -> tuple[Float[np.ndarray, " N"], list[str]]:
    """(times ascending, file names) of rgb.txt or depth.txt."""
    rows = []
    for line in common.read_bytes(path).decode("utf-8", errors="replace").splitlines():
        if line.strip() and not line.startswith("#"):
            try:
                time, name = line.split()[:2]
                rows.append((float(time), name))
            except ValueError as error:
                raise DatasetError(f"{path}: {line!r} is no time and file name") from error
    if not rows:
        raise DatasetError(f"{path} lists no files")
    rows.sort()
    return np.array([time for time, _ in rows]), [name for _, name in rows]


def _pairs(
    folder: Path,
    colors: tuple[Float[np.ndarray, " N"], list[str]],
    depths: tuple[Float[np.ndarray, " M"], list[str]],
    trajectory: Trajectory,
) -> list[tuple[float, float, str, str]]:
    """(time of the picture, time of the depth map, picture, depth map) of all usable pictures."""
    found = []
    for time, name in zip(*colors, strict=True):
        nearest = int(np.abs(depths[0] - time).argmin())
        other = float(depths[0][nearest])
        if abs(other - time) <= MAX_GAP and trajectory.covers(time) and trajectory.covers(other):
            found.append((float(time), other, name, depths[1][nearest]))
    if not found:
        spans = ", ".join(
            f"{what} {times[0]:.2f} to {times[-1]:.2f}"
            for what, times in (
                ("rgb", colors[0]),
                ("depth", depths[0]),
                ("groundtruth", trajectory.times),
            )
        )
        raise DatasetError(
            f"{folder} is not synchronised: no picture has a depth map within {MAX_GAP} s and "
            f"poses around it (seconds: {spans})"
        )
    return found
