"""DL3DV-10K (Ling et al. 2024): walks through places, with COLMAP cameras and no depth.

Where the COLMAP model was downloaded too, its cameras and observed points are the reference; with
`transforms.json` alone there are cameras only, and depth has to come from another reference.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from explorer._images import natural_key
from explorer.data.colmap_model import Model, ModelCamera, find_model, read_model
from explorer.data.dataset import DatasetCard, Scene, SceneEntry, register
from explorer.data.lens import Lens
from explorer.data.readers import _common as common
from explorer.data.readers._folders import FolderDataset
from explorer.data.readers._nerf import read_transforms
from explorer.data.readers._posed import Posed, PosedScene
from explorer.errors import DatasetError

PICTURES = ("images_4", "images_8", "images_2", "images")
"""Folders of pictures, the one that the published probing used first (960x540)."""


@register(
    DatasetCard(
        id="dl3dv",
        title="DL3DV-10K: walks through places, filmed in 4K",
        licence="CC BY-NC 4.0 and the DL3DV-10K terms of use",
        homepage="https://dl3dv-10k.github.io/DL3DV-10K/",
        layout="[SUBSET/]HASH/[nerfstudio/]images_4/ (or images_8, images_2, images) with "
        "transforms.json or a COLMAP model (sparse/0, colmap/sparse/0); or one HASH",
        geometry="COLMAP's sparse points where its model is there; otherwise cameras only",
    )
)
class Dl3dv(FolderDataset):
    """Scenes named SUBSET/HASH, or HASH where they lie in no subset; each a place of its own."""

    levels = 2

    @classmethod
    def is_scene(cls, folder: Path) -> bool:
        """Whether there are reduced pictures beside cameras.

        nerfstudio's own folders look alike, but keep the full pictures and have other names.
        """
        inner = _inner(folder)
        reduced = any((inner / name).is_dir() for name in PICTURES[:-1])
        hashed = re.fullmatch(r"[0-9a-f]{16,}", folder.name) is not None
        if not hashed and (inner / "images").is_dir():
            return False
        return reduced and ((inner / "transforms.json").is_file() or find_model(folder) is not None)

    def name_of(self, folder: Path) -> str:
        """SUBSET/HASH where the folder above is called like a subset, 1K to 11K."""
        subset = folder.parent.name
        known = subset[:-1].isdigit() and subset.endswith("K")
        return f"{subset}/{folder.name}" if known else folder.name

    def entry_of(self, folder: Path) -> SceneEntry:
        """The place is the hash, whatever the subset."""
        return SceneEntry(self.name_of(folder), folder.name)

    def read(self, entry: SceneEntry, folder: Path) -> Scene:
        """Open a scene; reads its cameras."""
        inner = _inner(folder)
        pictures = next(inner / name for name in PICTURES if (inner / name).is_dir())
        model = find_model(folder)
        if model is None:
            frames, _ = read_transforms(inner / "transforms.json")
            posed = [
                Posed(pictures / Path(frame.name).name, frame.cam_from_world, frame.lens)
                for frame in frames
            ]
            return PosedScene(entry, dataset="dl3dv", pictures=posed, geometry=None)
        found = read_model(model)
        return PosedScene(
            entry,
            dataset="dl3dv",
            pictures=_of_model(found, pictures, str(model)),
            geometry="COLMAP points",
            points=found.points,
        )


def _inner(folder: Path) -> Path:
    """The benchmark's scenes have one folder more."""
    return folder / "nerfstudio" if (folder / "nerfstudio").is_dir() else folder


def _of_model(model: Model, pictures: Path, where: str) -> list[Posed]:
    """The model's pictures that are there, in natural order."""
    found = []
    for name in sorted(model.images, key=natural_key):
        image = model.images[name]
        path = pictures / Path(name).name
        if image.camera not in model.cameras:
            raise DatasetError(f"{name} in {where} is of a camera that the model does not have")
        if path.is_file():
            lens = partial(_lens, model.cameras[image.camera])
            found.append(Posed(path, image.cam_from_world, lens, points=image.points))
    if not found:
        raise DatasetError(f"{pictures} has none of the pictures that {where} knows")
    return found


def _lens(camera: ModelCamera, size: tuple[int, int]) -> Lens:
    """The camera for pictures that were resized to (height, width)."""
    matrix, distortion = camera.pinhole()
    height, width = camera.size
    return Lens(common.scaled(matrix, size[1] / width, size[0] / height), distortion, size)
