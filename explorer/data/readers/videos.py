"""A plain folder of videos: no geometry of its own, but a reference can estimate it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from explorer._decode import VIDEO_SUFFIXES
from explorer._images import natural_key
from explorer._limits import Limits
from explorer.clip import Clip, Fit, VideoInfo, inspect_video, load_clip
from explorer.data.dataset import Dataset, DatasetCard, SceneEntry, register
from explorer.data.scene import Scene, View
from explorer.errors import DatasetError, NoReconstruction

CARD = DatasetCard(
    id="videos",
    title="A folder of videos",
    licence="of the videos",
    homepage="docs/prepare.md",
    layout="a folder with mp4 or mov files, or such folders in it",
    geometry="none; that of shipped clips is known to the reference exact",
    verified="the shipped clips",
)


@register(CARD)
class Videos(Dataset):
    """Every video is a scene, named by its path without ending, and a place of its own."""

    rank = 100  # other datasets may hold videos besides what makes them recognisable

    @classmethod
    def finds(cls, root: Path) -> bool:
        """Whether there is a video in it, or in a folder directly below."""
        # Not deeper: every folder that somebody opens is asked, however large it is.
        below = (path for pattern in ("*", "*/*") for path in root.glob(pattern))
        return root.is_dir() and any(_is_video(path) for path in below)

    def listing(self) -> tuple[SceneEntry, ...]:
        """Its videos."""
        return tuple(SceneEntry(name, name) for name in sorted(self._paths, key=natural_key))

    def open(self, entry: SceneEntry) -> Video:
        """Count the frames of a video."""
        return Video(entry, self._paths[entry.name])

    @cached_property
    def _paths(self) -> dict[str, Path]:
        found = [path for path in self.root.rglob("*") if _is_video(path)]
        return {path.relative_to(self.root).with_suffix("").as_posix(): path for path in found}


class Video(Scene):
    """One video. Its clips say nothing about this scene, which knows no more than they do.

    Raises:
        ClipError: it is broken or too large.
    """

    def __init__(self, entry: SceneEntry, path: Path) -> None:
        self._path = path
        self._info = inspect_video(path)
        frames, fps = self._info.frames, self._info.fps
        super().__init__(entry, dataset="videos", frames=frames, geometry=None, fps=fps)

    def source(self, frame: int) -> bytes:
        """There is none."""
        raise DatasetError(f"frames of {self.name} are no files: ask for a clip")

    def view(self, frame: int) -> View:
        """There is none."""
        raise NoReconstruction(f"nothing is known about the geometry of the video {self.name}")

    def info(self) -> VideoInfo:
        """Counted when it was opened."""
        return self._info

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
        """Decode a window, see `explorer.clip.load_clip`."""
        return load_clip(
            self._path, start=start, stride=stride, count=count, size=size, fit=fit, limits=limits
        )


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
