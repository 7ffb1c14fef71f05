"""One frame of CO3Dv2's annotations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from explorer._typing import Float
from explorer.data.readers import _common as common
from explorer.errors import DatasetError

FARTHEST = 1e5  # units of a camera that is one; objects are a few units away


@dataclass(frozen=True)
class Frame:
    """What the annotations say about a frame.

    Attributes:
        number: its place in the video.
        time: seconds, NaN where the annotations do not say.
        image, depth, depth_mask, mask: paths below the dataset's root, None where there is none.
        size: (height, width) of the picture.
        intrinsics: (3, 3) in its pixels, centres at +0.5.
        cam_from_world: (3, 4), OpenCV axes.
        depth_scale: factor of the stored depths.
    """

    number: int
    time: float
    image: str
    depth: str | None
    depth_mask: str | None
    mask: str | None
    size: tuple[int, int]
    intrinsics: Float[np.ndarray, "3 3"]
    cam_from_world: Float[np.ndarray, "3 4"]
    depth_scale: float

    @classmethod
    def read(cls, given: dict[str, Any]) -> Frame:
        """From one entry of the annotations.

        PyTorch3D's camera: points are rows, x_cam = x R + T, x to the left and y up; focal length
        and principal point in half widths and half heights ("ndc_norm_image_bounds"), or in halves
        of the shorter side ("ndc_isotropic"), from the middle of the picture, left and up.

        Raises:
            DatasetError: its camera is none.
            KeyError, TypeError, ValueError: something is missing or of another kind.
        """
        what = f"frame {given['frame_number']} of {given['sequence_name']}"
        view, depth, mask = given["viewpoint"], given.get("depth") or {}, given.get("mask") or {}
        height, width = (int(each) for each in given["image"]["size"])
        half = np.array([width, height]) / 2
        kind = str(view.get("intrinsics_format") or "ndc_norm_image_bounds").lower()
        if kind not in ("ndc_norm_image_bounds", "ndc_isotropic"):
            raise DatasetError(f"{what} has intrinsics of an unknown format {kind!r}")
        unit = half if kind == "ndc_norm_image_bounds" else half.min()
        fx, fy = np.array(view["focal_length"], dtype=np.float64) * unit
        cx, cy = half - np.array(view["principal_point"], dtype=np.float64) * unit
        turned = np.diag([-1.0, -1.0, 1.0])
        rotation = turned @ np.array(view["R"], dtype=np.float64).T
        translation = turned @ np.array(view["T"], dtype=np.float64)
        pose = np.concatenate([rotation, translation[:, None]], axis=1)
        return cls(
            number=int(given["frame_number"]),
            time=float(given.get("frame_timestamp", math.nan)),
            image=str(given["image"]["path"]),
            depth=depth.get("path"),
            depth_mask=depth.get("mask_path"),
            mask=mask.get("path"),
            size=(height, width),
            intrinsics=common.intrinsics(fx, fy, cx, cy),
            cam_from_world=common.checked_pose(pose, what),
            depth_scale=float(depth.get("scale_adjustment") or 1.0),
        )


def has_camera(given: dict[str, Any]) -> bool:
    """Withheld cameras are null; some that COLMAP lost are further away than anything."""
    view = given["viewpoint"]
    return view is not None and float(np.abs(np.array(view["T"])).max()) < FARTHEST
