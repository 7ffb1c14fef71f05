"""Datasets that are folders with one folder for each scene."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from explorer._images import natural_key
from explorer.data.dataset import Dataset, SceneEntry
from explorer.data.scene import Scene
from explorer.errors import DatasetError


class FolderDataset(Dataset):
    """A reader says what a scene's folder looks like, how it is called, and how it is opened.

    Attributes:
        levels: how many folders a scene's folder may lie below the one that was opened.
    """

    levels: ClassVar[int] = 1

    @classmethod
    @abstractmethod
    def is_scene(cls, folder: Path) -> bool:
        """Whether a folder holds one scene; looks at names only."""

    @abstractmethod
    def read(self, entry: SceneEntry, folder: Path) -> Scene:
        """Open the scene in a folder.

        Raises:
            DatasetError: a file is missing, damaged or of an unexpected shape.
        """

    def name_of(self, folder: Path) -> str:
        """Name of the scene in a folder, the same from wherever the dataset was opened."""
        return folder.name

    def entry_of(self, folder: Path) -> SceneEntry:
        """Name, place and split of the scene in a folder; each is a place of its own."""
        name = self.name_of(folder)
        return SceneEntry(name, name)

    @classmethod
    def finds(cls, root: Path) -> bool:
        """Whether there is a scene's folder."""
        return next(cls.scene_folders(root), None) is not None

    def listing(self) -> tuple[SceneEntry, ...]:
        """All scenes."""
        return tuple(self.entry_of(folder) for folder in self._by_name.values())

    def open(self, entry: SceneEntry) -> Scene:
        """Open one of them."""
        return self.read(entry, self._by_name[entry.name])

    @cached_property
    def _by_name(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for folder in self.scene_folders(self.root):
            name = self.name_of(folder)
            if name in found:
                raise DatasetError(
                    f"{found[name]} and {folder} are both called {name}: rename one, or open the "
                    "folders above them one by one"
                )
            found[name] = folder
        return found

    @classmethod
    def scene_folders(cls, root: Path, levels: int | None = None) -> Iterator[Path]:
        """Folders of scenes: `root` itself, or those below it; natural order."""
        below = cls.levels if levels is None else levels
        if not root.is_dir():
            return
        if cls.is_scene(root):
            yield root
        elif below > 0:
            inside = (path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
            for path in sorted(inside, key=lambda path: natural_key(path.name)):
                yield from cls.scene_folders(path, below - 1)
