"""What `emerge3d prepare` wrote, read back as a dataset like any other."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from explorer.data.dataset import Dataset, DatasetCard, SceneEntry, register
from explorer.data.prepared.manifest import MARK, NAME, Manifest, read_manifest
from explorer.data.prepared.scene import PreparedScene
from explorer.data.prepared.shards import Shard, open_shards
from explorer.data.prepared.sides import split_of
from explorer.data.splits import Split
from explorer.errors import DatasetError

CARD = DatasetCard(
    id="prepared",
    title="Clips with reference geometry, as emerge3d prepare writes them",
    licence="of the data that it was made from",
    homepage="docs/prepare.md",
    layout=f"a folder with {NAME} and shard-00000.tar, shard-00000.json, ...",
    geometry="that of the reference it was prepared with",
    verified="stores of rendered clips and of 7-Scenes RedKitchen",
)


@register(CARD)
class Prepared(Dataset):
    """Scenes of a store, under the names that they have in their own dataset."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.manifest: Manifest = read_manifest(root)
        self._found: dict[str, tuple[Shard, dict[str, Any]]] | None = None

    @classmethod
    def finds(cls, root: Path) -> bool:
        """Whether it has a manifest of ours."""
        path = root / NAME
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return MARK in file.read(200)  # other datasets may have manifests too

    @cached_property
    def split(self) -> Split:
        """Which scenes train and which test; names and places start with the dataset's id.

        Raises:
            SplitError: the file is broken.
        """
        return split_of(self.root, self.manifest, [entry for _, entry in self.clips.values()])

    def listing(self) -> tuple[SceneEntry, ...]:
        clips = [entry for _, entry in self.clips.values()]
        sides = {each.scene: side for side, scenes in self.split.sides.items() for each in scenes}
        return tuple(
            SceneEntry(entry["scene"], entry["split"]["place"], sides.get(entry["split"]["scene"]))
            for entry in clips
        )

    def open(self, entry: SceneEntry) -> PreparedScene:
        shard, listed = self.clips[entry.name]
        return PreparedScene(entry, shard, listed)

    def side(self, name: str, *, most: int | None = None) -> list[PreparedScene]:
        """The scenes on one side of the split, opened, in the order of the store.

        Args:
            name: of the side.
            most: scenes at most. Which ones follows from hashes of their recordings, so that they
                are of all parts of the dataset, and that more take in those of fewer.

        Raises:
            DatasetError, SplitError: as `split`.
        """
        wanted = {each.scene for each in self.split.sides.get(name, ())}
        found = [entry for _, entry in self.clips.values() if entry["split"]["scene"] in wanted]
        if most is not None and len(found) > most:
            order = sorted(_draw(entry) for entry in found)
            found = [entry for entry in found if _draw(entry) <= order[most - 1]] if most else []
        by_name = {entry.name: entry for entry in self.entries}
        return [self.open(by_name[entry["scene"]]) for entry in found]

    def verify(self) -> None:
        """Read every byte.

        Raises:
            DatasetError: some have changed since they were written.
        """
        for shard, entry in self.clips.values():
            shard.verify(entry)

    @property
    def clips(self) -> dict[str, tuple[Shard, dict[str, Any]]]:
        """Where each scene is: its shard, and what the index says about it."""
        if self._found is None:
            self._found = {
                entry["scene"]: (shard, entry)
                for shard in open_shards(self.root)
                for entry in shard.clips
            }
        return self._found


def _draw(entry: dict[str, Any]) -> bytes:
    return hashlib.sha256(f"some\0{entry['split']['identity']}".encode()).digest()


def open_prepared(root: str | Path) -> Prepared:
    """A store that `emerge3d prepare` wrote.

    Raises:
        DatasetError: it is none.
    """
    path = Path(root).expanduser()
    if not Prepared.finds(path):
        raise DatasetError(f"{path} holds no prepared data: there is no {NAME} in it")
    return Prepared(path)
