"""Which clips of a store train and which test: what its index and its manifest say, at any time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from explorer.data.dataset import SceneEntry
from explorer.data.prepared.manifest import SPLIT_NAME, Manifest
from explorer.data.splits import Split, SplitScene, extend_split, make_split, read_split

ORIGIN = "::"
"""Between the id of a dataset and the name of a scene or place in it."""


def split_scene(dataset: str, entry: SceneEntry, *, identity: str) -> SplitScene:
    """A scene of a dataset as split files know it: names and places are unique over datasets."""
    place = entry.place if ORIGIN in entry.place else f"{dataset}{ORIGIN}{entry.place}"
    return SplitScene(f"{dataset}{ORIGIN}{entry.name}", place, identity, entry.split)


def split_of(
    root: Path,
    manifest: Manifest,
    clips: Iterable[Mapping[str, Any]],
    coming: Iterable[SplitScene] = (),
) -> Split:
    """Sides of a store's clips; the store's file has them once a run has come to its end.

    Args:
        root: folder of the store.
        manifest: of it.
        clips: what the indices of its shards say of each.
        coming: scenes that are to be prepared.

    Raises:
        SplitError: the file is broken, or scenes that are not in it would move old ones.
    """
    scenes = [*(SplitScene(**entry["split"]) for entry in clips), *coming]
    path = root / SPLIT_NAME
    if path.is_file():
        return extend_split(read_split(path), scenes, official=manifest.official)
    return make_split(
        scenes,
        name=f"{manifest.settings.dataset} {manifest.settings.reference}",
        seed=manifest.split_seed,
        official=manifest.official,
    )
