"""What a path names: a video, a folder of images, a shipped clip, or a scene of a dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from explorer._images import IMAGE_SUFFIXES
from explorer.assets import assets_root
from explorer.clip import Clip, Fit, VideoInfo, inspect_video, load_clip
from explorer.errors import DatasetError

if TYPE_CHECKING:
    from explorer._limits import Limits
    from explorer.data.dataset import Dataset
    from explorer.data.scene import Scene

SEPARATOR = "::"
"""Between a dataset's folder and the name of a scene."""

_FILES = (".npz", ".sft")  # files that are datasets


@dataclass(frozen=True)
class Source:
    """Something that clips are taken from.

    Attributes:
        path: of the video or folder; as it was given where there is none.
        scene: of the dataset that the path names, None where it names a video.
    """

    path: Path
    scene: Scene | None = None

    def info(self) -> VideoInfo:
        """Count, time and measure it; raises like `clip`."""
        return inspect_video(self.path) if self.scene is None else self.scene.info()

    def clip(
        self,
        *,
        start: int = 0,
        stride: int = 1,
        count: int | None = 17,
        size: tuple[int, int] | None = (144, 256),
        fit: Fit = "crop",
        limits: Limits | None = None,
    ) -> Clip:
        """Decode a window, see `explorer.clip.load_clip`.

        Raises:
            ClipError: the input is missing, broken, over a limit or too short for the window.
            DatasetError: a file of the dataset is missing or damaged.
        """
        take = self._video if self.scene is None else self.scene.clip
        return take(start=start, stride=stride, count=count, size=size, fit=fit, limits=limits)

    def _video(
        self,
        *,
        start: int,
        stride: int,
        count: int | None,
        size: tuple[int, int] | None,
        fit: Fit,
        limits: Limits | None,
    ) -> Clip:
        return load_clip(
            self.path, start=start, stride=stride, count=count, size=size, fit=fit, limits=limits
        )


def open_source(path: str | Path) -> Source:
    """Find out what a path names, without decoding anything.

    A dataset's folder is recognised by its layout; `FOLDER::SCENE` chooses one of its scenes, where
    there are several. A folder that holds pictures itself is a clip, unless one of the datasets
    keeps its pictures like that. The name of a shipped clip stands for its file.

    Raises:
        DatasetError: a dataset with several scenes and none chosen, or no such scene; lists them.
    """
    path = Path(path)
    folder, separator, name = str(path).rpartition(SEPARATOR)
    if separator and not path.exists():
        from explorer.data.dataset import open_dataset

        return Source(path, open_dataset(None, folder).scene(name))
    dataset = _dataset(path)
    if dataset is not None:
        return Source(path, dataset.scene())
    return Source(path if path.is_dir() else _shipped(path))


@dataclass(frozen=True)
class Listed:
    """One of several sources, opened when its turn comes.

    Attributes:
        name: what `open_source` would take.
        open: raises like `open_source`.
    """

    name: str
    open: Callable[[], Source]


def open_sources(
    path: str | Path, *, side: str | None = None, clips: int | None = None
) -> list[Listed]:
    """What a path names; where it names a dataset with several scenes, each of them.

    Args:
        path: see `open_source`.
        side: of a dataset's split; only the scenes on it.
        clips: so many of a dataset's scenes, the first.

    Raises:
        DatasetError: no such side, or a path that has none.
    """
    dataset = None if SEPARATOR in str(path) else _dataset(Path(path))
    if dataset is None:
        if side is not None:
            raise DatasetError(f"{path} has no side {side!r}: only a whole dataset has sides")
        return [Listed(str(path), lambda: open_source(path))]
    found = [entry for entry in dataset.entries if side in (None, entry.split)]
    if not found:
        sides = sorted({entry.split for entry in dataset.entries if entry.split})
        raise DatasetError(
            f"{path} has no scene on the side {side!r}; sides: {', '.join(sides) or 'none'}"
            if dataset.entries
            else f"{path} holds no scene of {dataset.card.id}: {dataset.card.layout}"
        )

    def opener(name: str) -> Callable[[], Source]:
        return lambda: Source(Path(path), dataset.scene(name))

    return [Listed(f"{path}{SEPARATOR}{entry.name}", opener(entry.name)) for entry in found[:clips]]


def _dataset(path: Path) -> Dataset | None:
    """The dataset that a path names, None for a video or a folder of pictures."""
    file = path.suffix.lower() in _FILES and path.is_file()
    if not file and not (path.is_dir() and not _only_images(path)):
        return None
    from explorer.data.dataset import detect, open_dataset

    return open_dataset(None, path) if file or detect(path) is not None else None


def _only_images(folder: Path) -> bool:
    """Whether a folder holds pictures itself, and none of a dataset's that does so too."""
    names = [entry.name for entry in folder.iterdir()]
    if "transforms.json" in names or any(name.endswith(".color.png") for name in names):
        return False
    return any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names)


def _shipped(path: Path) -> Path:
    """The file of a shipped clip that is called by its name alone; else the path as it is."""
    if path.name != str(path) or path.exists():
        return path
    named = assets_root() / "clips" / (path.name if path.suffix else f"{path.name}.mp4")
    return named if named.is_file() else path
