"""7-Scenes (Shotton et al. 2013): rooms filmed by hand with a Kinect, poses by KinectFusion.

The raw depth is of the depth camera, and so are the poses: KinectFusion tracked that one. Both are
carried into the colour camera here, by the calibration of a Kinect of the same kind (Burrus; the
one that DSAC* and ACE use), since the dataset publishes none of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from explorer._images import natural_key
from explorer.data.dataset import DatasetCard, Scene, SceneEntry, View, register
from explorer.data.readers import _common as common
from explorer.data.readers._folders import FolderDataset
from explorer.data.registration import register_depth

DEPTH_FOCAL, COLOR_FOCAL = 585.0, 525.0  # pixels of 640x480, principal points in the middle
INVALID = 65535
COLOR_FROM_DEPTH = np.array(
    [
        [9.9996518012567637e-01, 2.6765126468950343e-03, -7.9041012313000904e-03, -0.025558943],
        [-2.7409311281316700e-03, 9.9996302803027592e-01, -8.1504520778013286e-03, 0.000101096],
        [7.8819942130445332e-03, 8.1718328771890631e-03, 9.9993554558014031e-01, 0.0020318322],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
"""From the depth camera's frame into the colour camera's, metres."""


@register(
    DatasetCard(
        id="7scenes",
        title="7-Scenes: seven rooms, Kinect depth and KinectFusion poses",
        licence="Microsoft Research licence, non-commercial",
        homepage="https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/",
        layout="ROOM/seq-XX/frame-XXXXXX.color.png, .depth.png and .pose.txt, with "
        "ROOM/TrainSplit.txt and TestSplit.txt; or one ROOM, or one seq-XX",
        geometry="depth camera, carried into the colour camera by a generic Kinect's calibration",
    )
)
class SevenScenes(FolderDataset):
    """Sequences named ROOM/seq-XX; the official split puts both halves into the same rooms."""

    levels = 2

    @classmethod
    def is_scene(cls, folder: Path) -> bool:
        """Whether there are colour frames."""
        return next(folder.glob("frame-*.color.png"), None) is not None

    def name_of(self, folder: Path) -> str:
        """ROOM/seq-XX."""
        return f"{folder.parent.name}/{folder.name}"

    def entry_of(self, folder: Path) -> SceneEntry:
        """`split` from the room's TrainSplit.txt and TestSplit.txt; the place is the room."""
        number = re.search(r"(\d+)$", folder.name)
        split = _split(folder.parent).get(int(number[1])) if number else None
        return SceneEntry(self.name_of(folder), folder.parent.name, split)

    def read(self, entry: SceneEntry, folder: Path) -> Scene:
        """Open a sequence."""
        return Recording(entry, folder)


class Recording(Scene):
    """Frames of one seq-XX folder, in metres."""

    def __init__(self, entry: SceneEntry, folder: Path) -> None:
        paths = folder.glob("frame-*.color.png")
        self.stems = sorted(
            (path.name.removesuffix(".color.png") for path in paths), key=natural_key
        )
        self.folder = folder
        super().__init__(
            entry,
            dataset="7scenes",
            frames=len(self.stems),
            geometry="depth camera",
            unit="m",
        )

    def source(self, frame: int) -> bytes:
        """The colour PNG."""
        return common.read_bytes(self.folder / f"{self.stems[frame]}.color.png")

    def view(self, frame: int) -> View:
        """Pose and depth, both carried from the depth camera into the colour camera."""
        stem = self.folder / self.stems[frame]
        pose_path = stem.with_name(f"{stem.name}.pose.txt")
        pose = common.inverse_pose(common.read_matrix(pose_path), str(pose_path))
        raw = common.read_depth(stem.with_name(f"{stem.name}.depth.png"))
        height, width = raw.shape
        color = common.intrinsics(COLOR_FOCAL, COLOR_FOCAL, 320.0, 240.0)
        color = common.scaled(color, width / 640, height / 480)
        depth = common.intrinsics(DEPTH_FOCAL, DEPTH_FOCAL, 320.0, 240.0)
        depth = common.scaled(depth, width / 640, height / 480)
        metres = np.where(raw == INVALID, 0.0, raw / 1000).astype(np.float32)
        return View(
            intrinsics=color,
            cam_from_world=(COLOR_FROM_DEPTH @ np.vstack([pose, [0, 0, 0, 1]]))[:3],
            depth=register_depth(metres, depth, color, COLOR_FROM_DEPTH, size=(height, width)),
        )


def _split(room: Path) -> dict[int, str]:
    """Sequence number -> split; the files hold lines like `sequence3`."""
    found: dict[int, str] = {}
    for name, split in (("TrainSplit.txt", "train"), ("TestSplit.txt", "test")):
        path = room / name
        if path.is_file():
            text = common.read_bytes(path).decode("utf-8", errors="replace")
            found |= {int(number): split for number in re.findall(r"(\d+)", text)}
    return found
