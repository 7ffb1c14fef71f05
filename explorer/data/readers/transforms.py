"""A plain folder with `transforms.json`, as instant-ngp and nerfstudio write it."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np

from explorer._typing import Float
from explorer.data.dataset import DatasetCard, Scene, SceneEntry, register
from explorer.data.readers import _common as common
from explorer.data.readers._folders import FolderDataset
from explorer.data.readers._nerf import image_path, read_transforms
from explorer.data.readers._posed import Posed, PosedScene
from explorer.errors import DatasetError

MILLIMETRE = 0.001
SCALES = ("depth_unit_scale_factor", "integer_depth_scale")
"""Entries that give the factor of stored depths: nerfstudio's option, and instant-ngp's."""


@register(
    DatasetCard(
        id="transforms",
        title="Folders with transforms.json (nerfstudio, instant-ngp)",
        licence="its owner's",
        homepage="https://docs.nerf.studio/quickstart/data_conventions.html",
        layout="[SCENE/]transforms.json, with the pictures and depth maps that it names",
        geometry="the depth maps that it names: 16-bit PNG or .npy, millimetres unless it says "
        "depth_unit_scale_factor or integer_depth_scale",
    )
)
class Transforms(FolderDataset):
    """Each folder is a scene and a place of its own."""

    rank = 1

    @classmethod
    def is_scene(cls, folder: Path) -> bool:
        """Whether the file is there."""
        return (folder / "transforms.json").is_file()

    def read(self, entry: SceneEntry, folder: Path) -> Scene:
        """Open a folder; reads its transforms.json."""
        frames, given = read_transforms(folder / "transforms.json")
        stated = [float(given[key]) for key in SCALES if key in given]
        scale = stated[0] if stated else MILLIMETRE
        pictures = [
            Posed(
                path=image_path(folder, frame.name),
                cam_from_world=frame.cam_from_world,
                lens=frame.lens,
                depth=None
                if frame.depth is None
                else partial(_read_depth, folder / frame.depth, scale),
            )
            for frame in frames
        ]
        deep = any(each.depth is not None for each in pictures)
        return PosedScene(
            entry,
            dataset="transforms",
            pictures=pictures,
            geometry="depth maps" if deep else None,
            unit="m" if deep and scale == MILLIMETRE else None,
        )


def _read_depth(path: Path, scale: float) -> Float[np.ndarray, "h w"]:
    """z-depth times the factor.

    Raises:
        DatasetError: the file is missing, damaged or no map.
    """
    if path.suffix.lower() != ".npy":
        return common.read_depth(path) * np.float32(scale)
    try:
        found = np.load(io.BytesIO(common.read_bytes(path)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DatasetError(f"{path} is no array ({error})") from error
    if found.ndim == 3 and found.shape[-1] == 1:
        found = found[..., 0]
    if found.ndim != 2 or found.dtype.kind not in "fiu":
        raise DatasetError(f"{path} is no depth map: {found.dtype} {found.shape}")
    return np.asarray(found, dtype=np.float32) * np.float32(scale)
