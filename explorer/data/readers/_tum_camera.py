"""The cameras of TUM RGB-D recordings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from explorer._typing import Float
from explorer.data.lens import Lens
from explorer.data.readers import _common as common
from explorer.errors import DatasetError

SIZE = (480, 640)
CAMERAS = {
    1: ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    2: ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    3: ((535.4, 539.2, 320.1, 247.6), (0.0, 0.0, 0.0, 0.0, 0.0)),
}
"""The published colour cameras by N of freiburgN: (fx, fy, cx, cy), (k1, k2, p1, p2, k3)."""


class Calibration(NamedTuple):
    """Cameras of a recording; `depth` and `color_from_depth` are those of registered depth."""

    color: Lens
    depth: Lens
    color_from_depth: Float[np.ndarray, "4 4"]


def freiburg(folder: Path) -> int | None:
    """The number in a recording's name, which says which Kinect took it."""
    found = re.search(r"freiburg([123])", folder.name)
    return int(found[1]) if found else None


def calibration(folder: Path) -> Calibration:
    """The cameras of a recording: from calibration.json where there is one, else as published.

    Raises:
        DatasetError: there is neither, or the file says something else.
    """
    path = folder / "calibration.json"
    if path.is_file():
        given = common.read_json(path)
        try:
            color = _lens(given["color"])
            depth = _lens(given["depth"]) if "depth" in given else color
            moved = np.array(given.get("color_from_depth", np.eye(4)), dtype=np.float64)
            return Calibration(color, depth, moved.reshape(4, 4))
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{path} is no calibration ({error!r}): expected "
                '{"color": {"size": [h, w], "fx", "fy", "cx", "cy", "distortion": [k1, k2, p1, p2, '
                'k3]}, "depth": the same, "color_from_depth": 4x4}, the last two if depth is not '
                "registered"
            ) from error
    number = freiburg(folder)
    if number is None:
        raise DatasetError(
            f"{folder.name} does not say which camera took it (freiburg1, 2 or 3): write its "
            f"intrinsics into {path}"
        )
    (fx, fy, cx, cy), distortion = CAMERAS[number]
    lens = Lens(common.intrinsics(fx, fy, cx, cy, centers=0.0), distortion, SIZE)
    return Calibration(lens, lens, np.eye(4))


def _lens(given: dict[str, Any]) -> Lens:
    fx, fy, cx, cy = (float(given[name]) for name in ("fx", "fy", "cx", "cy"))
    k1, k2, p1, p2, k3 = (float(each) for each in given.get("distortion", [0.0] * 5))
    height, width = (int(each) for each in given["size"])
    matrix = common.intrinsics(fx, fy, cx, cy, centers=0.0)
    return Lens(matrix, (k1, k2, p1, p2, k3), (height, width))
