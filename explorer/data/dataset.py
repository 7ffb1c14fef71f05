"""`Dataset`: a folder of scenes in a published layout, read by whoever is registered for it.

    dataset = open_dataset(None, "/data/7scenes")
    scene = dataset.scene("chess/seq-01")
    clip = scene.clip(start=100, stride=2, count=17, size=(144, 256))
    reference = scene.reconstruction(clip)

A reader is one file: a card, a `Dataset`, a `Scene`. Files in `explorer/data/readers/` come with
the project; `explorer.plugins` brings those from elsewhere.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from explorer import plugins
from explorer.data import readers
from explorer.data.scene import Scene, SceneEntry, View
from explorer.errors import DatasetError

__all__ = [
    "Dataset",
    "DatasetCard",
    "Scene",
    "SceneEntry",
    "View",
    "cards",
    "detect",
    "open_dataset",
    "register",
    "shipped",
]

_SHOWN = 12  # scene names in an error


@dataclass(frozen=True)
class DatasetCard:
    """What is known about a dataset before anybody has downloaded it.

    Attributes:
        id: for commands.
        title: one line for people.
        licence: under which its owners give it away; the reader is this project's own.
        homepage: where it is described and downloaded.
        layout: what the folder (or file) must hold, as it is looked for.
        geometry: where its depth comes from and how far to trust it.
        verified: on which real data the reader has been run.
    """

    id: str
    title: str
    licence: str
    homepage: str
    layout: str
    geometry: str
    verified: str = "no real download, only files written in its published layout"


class Dataset(ABC):
    """Scenes of one folder.

    Attributes:
        card: set by `register`.
        root: what was opened.
        rank: of several readers that find a folder theirs, the one with the lowest takes it.
        sets: scenes that its owners or users choose together: the names, or first parts of names,
            by what the choice is called.
    """

    card: ClassVar[DatasetCard]
    rank: ClassVar[int] = 0
    sets: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init__(self, root: Path) -> None:
        self.root = root
        self._entries: tuple[SceneEntry, ...] | None = None

    @classmethod
    @abstractmethod
    def finds(cls, root: Path) -> bool:
        """Whether a folder or file looks like this dataset; opens nothing large."""

    @abstractmethod
    def listing(self) -> tuple[SceneEntry, ...]:
        """Read names, places and splits from the folder, cheaply, in natural order.

        Raises:
            DatasetError: an index that this needs is damaged.
        """

    @abstractmethod
    def open(self, entry: SceneEntry) -> Scene:
        """Open one of the listed scenes; decodes no picture.

        Raises:
            DatasetError: a file is missing, damaged or of an unexpected shape.
        """

    @property
    def entries(self) -> tuple[SceneEntry, ...]:
        """What `listing` gives, read once."""
        if self._entries is None:
            self._entries = self.listing()
        return self._entries

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scenes."""
        return tuple(entry.name for entry in self.entries)

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.entries)

    def keep(self, wanted: Sequence[str]) -> None:
        """Leave out all scenes but some, as if the folder did not have them.

        Args:
            wanted: names of scenes, first parts of names ("apple" of "apple/110_13051_23361"), or
                names of `sets`, of which not everything has to be here.

        Raises:
            DatasetError: nothing of one of them is here; all scenes stay.
        """
        kept: set[SceneEntry] = set()
        for each in wanted:
            heads = self.sets.get(each, (each,))
            found = [
                entry for entry in self.entries if f"{entry.name}/".startswith(_folders(heads))
            ]
            if not found:
                choices = (*self.sets, *dict.fromkeys(name.split("/")[0] for name in self.names))
                raise DatasetError(
                    f"{self.root} has no scene of {each!r}; choose among: {_some(choices)}"
                )
            kept.update(found)
        self._entries = tuple(entry for entry in self.entries if entry in kept)

    def scene(self, name: str | None = None) -> Scene:
        """A scene by its name; the only one where no name is given.

        Raises:
            DatasetError: no such scene, no scene at all, or several and none named; lists them.
        """
        if not self.entries:
            raise DatasetError(f"{self.root} holds no scene of {self.card.id}: {self.card.layout}")
        if name is None:
            if len(self.entries) > 1:
                raise DatasetError(
                    f"{self.root} holds {len(self)} scenes of {self.card.id}; say which, as "
                    f"{self.root}::NAME: {_some(self.names)}"
                )
            return self.open(self.entries[0])
        for entry in self.entries:
            if entry.name == name:
                return self.open(entry)
        raise DatasetError(f"{self.root} has no scene {name!r}; there are: {_some(self.names)}")

    def scenes(self) -> Iterator[Scene]:
        """All scenes, opened one after the other."""
        for entry in self.entries:
            yield self.open(entry)


Reader = TypeVar("Reader", bound=type[Dataset])

_readers: dict[str, type[Dataset]] = {}


def register(card: DatasetCard) -> Callable[[Reader], Reader]:
    """Put a reader into the list under its card's id.

    Raises:
        ValueError: there is one of this id.
    """

    def decorate(reader: Reader) -> Reader:
        if card.id in _readers:
            raise ValueError(f"two datasets are called {card.id}")
        reader.card = card
        _readers[card.id] = reader
        return reader

    return decorate


def shipped() -> dict[str, type[Dataset]]:
    """The table that `register` fills, with all that comes with the project in it."""
    for module in pkgutil.iter_modules(readers.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{readers.__name__}.{module.name}")
    return _readers


def _discover() -> dict[str, type[Dataset]]:
    """All readers by their ids; those of plugins, which must not take a folder away, come last."""
    shipped()
    plugins.load()

    def place(item: tuple[str, type[Dataset]]) -> tuple[bool, str]:
        return plugins.is_foreign(item[1]), item[0]

    return dict(sorted(_readers.items(), key=place))


def cards() -> list[DatasetCard]:
    """The cards of all readers."""
    return [reader.card for reader in _discover().values()]


def detect(root: str | Path) -> type[Dataset] | None:
    """The reader that a folder or file looks like, or None.

    Where several fit, the one of lowest rank: a plain folder with `transforms.json` comes last.
    """
    path = Path(root)
    fitting = [reader for reader in _discover().values() if reader.finds(path)]
    return min(fitting, key=lambda reader: reader.rank, default=None)


def open_dataset(name: str | None, root: str | Path) -> Dataset:
    """Open a folder (or file) as a dataset; reads no scene.

    Args:
        name: id of the reader; None recognises it from what is there.
        root: the folder as it was downloaded and unpacked, or one part of it: a room, a category,
            a scene.

    Raises:
        DatasetError: nothing is there, there is no reader of this name, or the folder does not look
            like it; says what was looked for.
    """
    # Names of scenes are made of folder names: "." would have none.
    path = Path(os.path.abspath(Path(root).expanduser()))
    known = _discover()
    if name is not None and name not in known:
        raise DatasetError(
            f"there is no dataset {name!r}; there are: {', '.join(known)}{plugins.missing()}"
        )
    if not path.exists():
        raise DatasetError(f"{path} does not exist: check the path")
    if name is None:
        found = detect(path)
        if found is None:
            raise DatasetError(
                f"{path} is none of the known datasets. {_looked_for(known)}{plugins.missing()}"
            )
        return found(path)
    if not known[name].finds(path):
        raise DatasetError(
            f"{path} does not look like {name}. Looked for: {known[name].card.layout}"
        )
    return known[name](path)


def _folders(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name.rstrip('/')}/" for name in names)


def _looked_for(known: dict[str, type[Dataset]]) -> str:
    return "Looked for: " + "; ".join(
        f"{name}: {reader.card.layout}" for name, reader in known.items()
    )


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f", and {more} more" if more > 0 else "")
