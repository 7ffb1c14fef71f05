"""CO3Dv2 (Reizenstein et al. 2021): objects filmed while walking around them.

Cameras are COLMAP's, depth is its multi-view stereo; lengths mean nothing. Pictures are the 16:9
part around the principal point that the published probing of video models used; geometry follows.
"""

from __future__ import annotations

import gzip
from collections import abc
from pathlib import Path
from typing import Any

import numpy as np

from explorer import _images
from explorer._images import natural_key
from explorer._typing import Float, UInt8
from explorer.data.dataset import Dataset, DatasetCard, Scene, SceneEntry, View, register
from explorer.data.readers import _common as common
from explorer.data.readers._co3d_crop import ASPECT, crop_of, official_start
from explorer.data.readers._co3d_frame import Frame, has_camera
from explorer.errors import DatasetError

FRAMES, SEQUENCES = "frame_annotations.jgz", "sequence_annotations.jgz"
# Of the lists in set_lists/, these divide sequences; the "manyview" ones divide frames of one.
SPLITS = (("fewview_train", "train"), ("fewview_dev", "val"), ("fewview_test", "test"))
ABLATION = (
    "apple", "backpack", "bench", "bowl", "chair", "handbag", "hydrant", "motorcycle", "plant",
    "teddybear", "toytruck",
)  # fmt: skip
"""Categories of the published ablations."""
CATEGORIES = (
    "apple", "backpack", "ball", "banana", "baseballbat", "baseballglove", "bench", "bicycle",
    "book", "bottle", "bowl", "broccoli", "cake", "car", "carrot", "cellphone", "chair", "couch",
    "cup", "donut", "frisbee", "hairdryer", "handbag", "hotdog", "hydrant", "keyboard", "kite",
    "laptop", "microwave", "motorcycle", "mouse", "orange", "parkingmeter", "pizza", "plant",
    "remote", "sandwich", "skateboard", "stopsign", "suitcase", "teddybear", "toaster", "toilet",
    "toybus", "toyplane", "toytrain", "toytruck", "tv", "umbrella", "vase", "wineglass",
)  # fmt: skip
"""All that the dataset has."""


@register(
    DatasetCard(
        id="co3d",
        title="CO3Dv2: common objects, filmed while walking around them",
        licence="CC BY-NC 4.0",
        homepage="https://github.com/facebookresearch/co3d",
        layout=f"CATEGORY/{FRAMES}, {SEQUENCES}, [set_lists/], and CATEGORY/SEQUENCE/images/, "
        "depths/, [depth_masks/, masks/]; or one CATEGORY",
        geometry="multi-view stereo (COLMAP) of the same video; no metric scale",
    )
)
class Co3d(Dataset):
    """Sequences named CATEGORY/SEQUENCE, each a place of its own."""

    sets = {"official": CATEGORIES, "ablation": ABLATION}

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._annotations: tuple[str, dict[str, list[dict[str, Any]]]] | None = None

    @classmethod
    def finds(cls, root: Path) -> bool:
        """A category, or a folder of them."""
        return bool(_categories(root))

    def listing(self) -> tuple[SceneEntry, ...]:
        """From the categories' sequence annotations and the lists of the few-view task."""
        entries = []
        for folder in _categories(self.root):
            splits = _splits(folder / "set_lists")
            names = [str(each["sequence_name"]) for each in _annotations(folder / SEQUENCES)]
            for name in sorted(names, key=natural_key):
                full = f"{folder.name}/{name}"
                entries.append(SceneEntry(full, full, splits.get(name)))
        return tuple(entries)

    def open(self, entry: SceneEntry) -> Scene:
        """Open a sequence; the annotations of the category opened last stay in memory.

        Raises:
            DatasetError: the annotations are damaged, or have no frames of it.
        """
        category, name = entry.name.split("/", 1)
        if self._annotations is None or self._annotations[0] != category:
            folder = next(each for each in _categories(self.root) if each.name == category)
            by_sequence: dict[str, list[dict[str, Any]]] = {}
            for each in _annotations(folder / FRAMES):
                by_sequence.setdefault(str(each["sequence_name"]), []).append(each)
            self._annotations = category, by_sequence
            self._root = folder.parent
        frames = self._annotations[1].get(name)
        if not frames:
            raise DatasetError(f"the annotations of {category} have no frames of {name}")
        try:
            usable = [Frame.read(each) for each in frames if has_camera(each)]
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"the annotations of {entry.name} are not those of CO3Dv2 ({error!r})"
            ) from error
        if not usable:
            raise DatasetError(f"{entry.name} has no camera: the dataset withholds it or has none")
        return Sequence(entry, self._root, usable)


class Sequence(Scene):
    """Frames of one sequence, in its own unit, cropped to 16:9 around the principal points."""

    def __init__(self, entry: SceneEntry, root: Path, frames: list[Frame]) -> None:
        self.root = root
        self.frames = sorted(frames, key=lambda frame: frame.number)
        self.crops = crop_of(
            entry.name,
            [frame.size for frame in self.frames],
            np.stack([frame.intrinsics for frame in self.frames]),
        )
        depths = any(frame.depth for frame in self.frames)
        times = np.array([frame.time for frame in self.frames], dtype=np.float64)
        gaps = np.diff(times)
        self.times = times if np.isfinite(times).all() and (gaps > 0).all() else None
        super().__init__(
            entry,
            dataset="co3d",
            frames=len(frames),
            geometry="multi-view stereo" if depths else None,
            fps=_images.FPS if self.times is None or not len(gaps) else float(1 / np.median(gaps)),
            treatment=f"cropped to {ASPECT[0]}:{ASPECT[1]} at {self.crops}",
        )

    def seconds(self, frames: abc.Sequence[int]) -> Float[np.ndarray, " T"]:
        """As annotated, where times rise; else at the usual rate."""
        if self.times is None:
            return super().seconds(frames)
        return np.asarray(self.times[list(frames)] - self.times[0], dtype=np.float64)

    def source(self, frame: int) -> bytes:
        """The picture as it was downloaded."""
        return common.read_bytes(self.root / self.frames[frame].image)

    def picture(self, frame: int, data: bytes) -> UInt8[np.ndarray, "H W 3"]:
        """Its 16:9 part."""
        image = super().picture(frame, data)
        if image.shape[:2] != self.frames[frame].size:
            raise DatasetError(
                f"{self.frames[frame].image} is {image.shape[1]}x{image.shape[0]}, its annotation "
                f"says {self.frames[frame].size[1]}x{self.frames[frame].size[0]}"
            )
        return np.ascontiguousarray(self._cut(frame, image))

    def official_start(self, count: int = 81) -> int:
        """The window, of those that start at every fourth frame, that cuts off least of the object.

        Raises:
            DatasetError: the sequence is too short, has no masks, its 16:9 part would have to be
                enlarged by more than 1.5 to 960 columns, or more than a quarter of the object is
                cut off in every window.
        """
        masks = [self._mask_of(frame) for frame in range(len(self))]
        return official_start(self.name, masks, self.crops, count)

    def _mask_of(self, frame: int) -> Path | None:
        name = self.frames[frame].mask
        return None if name is None else self.root / name

    def view(self, frame: int) -> View:
        """Camera and depth; depth PNGs hold float16 numbers in 16 bits."""
        found = self.frames[frame]
        top, left, *_ = self.crops[frame]
        matrix = found.intrinsics.copy()
        matrix[:2, 2] -= left, top
        if found.depth is None:
            return View(matrix, found.cam_from_world)
        stored = common.read_png16(self.root / found.depth)
        if stored.shape != found.size:
            raise DatasetError(
                f"{found.depth} has shape {stored.shape}, its picture {found.size}: it is damaged"
            )
        with np.errstate(invalid="ignore"):
            depth = stored.view(np.float16).astype(np.float32) * np.float32(found.depth_scale)
        depth[~np.isfinite(depth) | (depth < 0)] = 0.0
        if found.depth_mask is not None and (self.root / found.depth_mask).is_file():
            mask = common.read_mask(self.root / found.depth_mask)
            if mask.shape != depth.shape:
                raise DatasetError(f"{found.depth_mask} has shape {mask.shape}, not {depth.shape}")
            depth[mask == 0] = 0.0
        return View(matrix, found.cam_from_world, self._cut(frame, depth))

    def _cut(self, frame: int, image: np.ndarray) -> np.ndarray:
        top, left, height, width = self.crops[frame]
        return image[top : top + height, left : left + width]


def _categories(root: Path) -> list[Path]:
    if (root / SEQUENCES).is_file():
        return [root]
    if not root.is_dir():
        return []
    return sorted(path.parent for path in root.glob(f"*/{SEQUENCES}"))


def _annotations(path: Path) -> list[dict[str, Any]]:
    """A gzipped JSON list; raises DatasetError where it is none."""
    try:
        data = gzip.decompress(common.read_bytes(path))
    except (EOFError, OSError) as error:
        raise DatasetError(f"{path} is cut off or damaged ({error}): get it again") from error
    found = common.parse_json(path, data)
    if not isinstance(found, list) or not all(
        isinstance(each, dict) and "sequence_name" in each for each in found
    ):
        raise DatasetError(f"{path} is not a list of CO3Dv2's annotations")
    return found


def _splits(folder: Path) -> dict[str, str]:
    """Sequence -> split. What any few-view list trains on is for training, whatever else it is."""
    found: dict[str, str] = {}
    for name, split in SPLITS:
        path = folder / f"set_lists_{name}.json"
        if not path.is_file():
            continue
        for key, rows in common.read_json(path).items():
            here = "train" if key == "train" else split
            for name_of_row, *_ in rows:
                if found.get(name_of_row) != "train":
                    found[name_of_row] = here
    return found
