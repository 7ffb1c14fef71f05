"""Poses over time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from explorer._typing import Float
from explorer.data.readers import _common as common
from explorer.errors import DatasetError


@dataclass(frozen=True)
class Trajectory:
    """Camera poses at given times, and between them.

    Attributes:
        times: (N,) ascending seconds.
        centers: (N, 3) camera centres.
        quaternions: (N, 4) of the camera-to-world rotations, (w, x, y, z) of unit length.
        max_gap: seconds between two poses beyond which nothing is said about the time between.
    """

    times: Float[np.ndarray, " N"]
    centers: Float[np.ndarray, "N 3"]
    quaternions: Float[np.ndarray, "N 4"]
    max_gap: float

    @classmethod
    def read(cls, path: Path, *, max_gap: float) -> Trajectory:
        """From a file with lines `time tx ty tz qx qy qz qw`, camera to world.

        Raises:
            DatasetError: the file is missing, holds something else, or a pose that is not finite.
        """
        text = common.read_bytes(path).decode("utf-8", errors="replace")
        lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
        try:
            found = np.array([[float(each) for each in line.split()] for line in lines])
        except ValueError as error:
            raise DatasetError(f"{path} is no trajectory ({error})") from error
        if found.ndim != 2 or found.shape[1] != 8:
            raise DatasetError(f"{path} is no trajectory: expected lines of 8 numbers")
        if not np.isfinite(found).all():
            raise DatasetError(f"{path} has a pose with NaN or infinity: remove its line")
        length = np.linalg.norm(found[:, 4:], axis=1, keepdims=True)
        if (np.abs(length - 1) > 0.1).any():
            raise DatasetError(f"{path} has a rotation that is no unit quaternion: remove its line")
        found = found[np.argsort(found[:, 0], kind="stable")]
        quaternions = (found[:, 4:] / np.linalg.norm(found[:, 4:], axis=1, keepdims=True))[
            :, [3, 0, 1, 2]
        ]
        return cls(found[:, 0], found[:, 1:4], quaternions, max_gap)

    def covers(self, time: float) -> bool:
        """Whether there are poses on both sides, close enough together."""
        after = int(np.searchsorted(self.times, time))
        if after < len(self.times) and self.times[after] == time:
            return True
        inside = 0 < after < len(self.times)
        return bool(inside and self.times[after] - self.times[after - 1] <= self.max_gap)

    def at(self, time: float) -> Float[np.ndarray, "4 4"]:
        """`cam_from_world` at a time that is covered: centres linear, rotations along the arc."""
        after = min(max(int(np.searchsorted(self.times, time)), 1), len(self.times) - 1)
        before = after - 1 if len(self.times) > 1 else after
        span = self.times[after] - self.times[before]
        share = float(np.clip((time - self.times[before]) / span, 0, 1)) if span > 0 else 1.0
        first, second = self.quaternions[before], self.quaternions[after]
        second = second if first @ second >= 0 else -second
        angle = float(np.arccos(np.clip(first @ second, -1.0, 1.0)))
        if angle < 1e-6:
            turned = (1 - share) * first + share * second
        else:
            turned = np.sin((1 - share) * angle) * first + np.sin(share * angle) * second
        center = (1 - share) * self.centers[before] + share * self.centers[after]
        pose = np.eye(4)
        pose[:3, :3] = common.rotation_of(turned).T
        pose[:3, 3] = -pose[:3, :3] @ center
        return pose
