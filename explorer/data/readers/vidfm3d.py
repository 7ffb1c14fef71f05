"""The processed `.sft` files of the published probing (Huang et al. 2025): VGGT's geometry.

One safetensors file a clip: images uint8 (S, 3, 294, 518), depthmaps and confmaps float (S, H, W,
1), pointmaps (S, H, W, 3), intrinsic (S, 3, 3), extrinsic (S, 3, 4) world to camera, start_idx, and
for CO3D masks. Depth is unprojected here, with the first pixel's centre at +0.5 as the intrinsics'
principal point in the middle of the picture asks for; the stored point maps, which lie half a pixel
beside that, are not read.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from explorer._images import natural_key
from explorer._typing import UInt8
from explorer.data.dataset import Dataset, DatasetCard, Scene, SceneEntry, View, register
from explorer.data.readers import _common as common
from explorer.data.readers.co3d import CATEGORIES
from explorer.errors import DatasetError

SPLITS = (("train.json", "train"), ("val.json", "val"))
LEVELS = 3


@register(
    DatasetCard(
        id="vidfm3d",
        title="Processed clips of the published probing (.sft)",
        licence="that of the dataset it was made from, and of VGGT's weights",
        homepage="https://vidfm-3d-probe.github.io/",
        layout="[SUBSET/][HASH/]NAME.sft with images, depthmaps, confmaps, intrinsic, extrinsic; "
        "train.json and val.json of [subset, hash] beside them; or one .sft file",
        geometry="VGGT's estimate with its confidence, not ground truth; no metric scale",
    )
)
class Vidfm3d(Dataset):
    """Clips, called SUBSET/HASH like the scenes of DL3DV and CO3Dv2 that they are of.

    So they are whichever folder was opened; those of neither are called by their paths.
    """

    @classmethod
    def finds(cls, root: Path) -> bool:
        """Such a file, or a folder with some."""
        return next(iter(_files(root, first=True)), None) is not None

    @cached_property
    def _base(self) -> Path:
        return self.root if self.root.is_dir() else self.root.parent

    @cached_property
    def _by_name(self) -> dict[str, Path]:
        """A file that is alone in its folder is called like the folder."""
        files = _files(self.root)
        together = Counter(path.parent for path in {*files, *self._base.glob("*.sft")})
        found: dict[str, Path] = {}
        for path in files:
            alone = together[path.parent] == 1
            origin, stem = _origin(path), path.with_suffix("")
            if origin is not None:
                last = () if alone or stem.parts[-2:] == origin else (stem.name,)
                name = "/".join((*origin, *last))
            else:
                named = path.parent if alone and path.parent != self._base else stem
                name = named.relative_to(self._base).as_posix()
            if name in found:
                raise DatasetError(
                    f"{found[name]} and {path} are both called {name}: open their folders one by "
                    "one"
                )
            found[name] = path
        return found

    def listing(self) -> tuple[SceneEntry, ...]:
        """All files; `split` from train.json and val.json; places are those of the origin."""
        entries = []
        for name, path in self._by_name.items():
            subset, scene = _origin(path) or ("", "")
            place = f"co3d::{subset}/{scene}" if subset in CATEGORIES else f"dl3dv::{scene}"
            split = self._splits.get(f"{subset}/{scene}" if subset else name)
            entries.append(SceneEntry(name, place if subset else name, split))
        return tuple(entries)

    def open(self, entry: SceneEntry) -> Scene:
        """Open a file; reads its cameras."""
        return Processed(entry, self._by_name[entry.name])

    @cached_property
    def _splits(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for folder in (self._base.parent.parent, self._base.parent, self._base):
            for name, split in SPLITS:
                if (folder / name).is_file():
                    rows = common.read_json(folder / name)
                    found |= {"/".join(str(part) for part in row): split for row in rows}
        return found


def _origin(path: Path) -> tuple[str, str] | None:
    """(SUBSET, HASH) of a file in SUBSET/HASH/ or called so; None where neither is a known subset.

    Subsets of DL3DV are called 1K to 11K, those of CO3Dv2 like its categories.
    """
    for subset, name in itertools.pairwise(path.with_suffix("").parts[-3:]):
        if re.fullmatch(r"\d+K", subset) or subset in CATEGORIES:
            return subset, name
    return None


class Processed(Scene):
    """The frames of one file, in VGGT's unit."""

    def __init__(self, entry: SceneEntry, path: Path) -> None:
        self.path = path
        shapes = self._shapes()
        images = shapes.get("images", ())
        if len(images) != 4 or images[1] != 3 or images[0] < 1:
            raise DatasetError(f"images in {path} have shape {images}, not (S, 3, H, W)")
        count, _, height, width = images
        expected = {
            "depthmaps": (count, height, width, 1),
            "confmaps": (count, height, width, 1),
            "intrinsic": (count, 3, 3),
            "extrinsic": (count, 3, 4),
        }
        for name, shape in expected.items():
            if shapes.get(name) != shape:
                raise DatasetError(
                    f"{name} in {path} has shape {shapes.get(name)}, expected {shape}"
                )
        self.intrinsics, self.extrinsics = self._whole("intrinsic"), self._whole("extrinsic")
        super().__init__(entry, dataset="vidfm3d", frames=count, geometry="VGGT estimate")

    def source(self, frame: int) -> bytes:
        """The picture's pixels, channel by channel."""
        return np.ascontiguousarray(self._row("images", frame)).tobytes()

    def picture(self, frame: int, data: bytes) -> UInt8[np.ndarray, "H W 3"]:
        """The picture."""
        shape = self._shapes()["images"][1:]
        pixels = np.frombuffer(data, dtype=np.uint8).reshape(shape)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))

    def view(self, frame: int) -> View:
        """Camera, depth and VGGT's confidence."""
        return View(
            intrinsics=self.intrinsics[frame].astype(np.float64),
            cam_from_world=common.checked_pose(
                self.extrinsics[frame].astype(np.float64), f"frame {frame} of {self.name}"
            ),
            depth=self._row("depthmaps", frame)[..., 0].astype(np.float32),
            confidence=self._row("confmaps", frame)[..., 0].astype(np.float32),
        )

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        with _opened(self.path) as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118

    def _whole(self, name: str) -> np.ndarray:
        with _opened(self.path) as file:
            return np.asarray(file.get_tensor(name))

    def _row(self, name: str, frame: int) -> np.ndarray:
        with _opened(self.path) as file:
            return np.asarray(file.get_slice(name)[frame])


def _files(root: Path, *, first: bool = False) -> list[Path]:
    """All .sft files at and below a place that look like processed clips, natural order."""
    if root.is_file():
        return [root] if root.suffix == ".sft" and _is_processed(root) else []
    if not root.is_dir():
        return []
    found: list[Path] = []
    for level in range(LEVELS):
        for path in root.glob("*/" * level + "*.sft"):
            # Features of the same project have the same ending.
            if _is_processed(path):
                found.append(path)
                if first:
                    return found
    return sorted(found, key=lambda path: natural_key(path.as_posix()))


def _is_processed(path: Path) -> bool:
    """By the header alone; a damaged file counts, since opening it says what is wrong."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            names = json.loads(file.read(min(length, 1 << 20)))
    except (OSError, ValueError):
        return True
    return {"images", "depthmaps", "extrinsic"} <= set(names)


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="numpy")
    except (OSError, SafetensorError) as error:
        raise DatasetError(f"{path} is cut off or damaged ({error}): get it again") from error
