"""Splits by seed: no scene is in two of them, and a seed says which family of scenes it is from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from explorer.data.splits import SplitScene
from explorer.data.world.spec import DYNAMIC, SHIFTED, TRAIN, WORLD_VERSION, WorldSpec


@dataclass(frozen=True)
class Split:
    """Consecutive seeds and what their scenes may contain."""

    first: int
    count: int
    spec: WorldSpec = TRAIN


SPLITS = {
    "validation": Split(1_000_000, 1_000_000),
    "test": Split(2_000_000, 500),
    "shipped": Split(3_000_000, 1_000_000),
    "shifted": Split(4_000_000, 500, SHIFTED),
    "dynamic": Split(5_000_000, 500, DYNAMIC),
    "train": Split(10_000_000, 1_990_000_000),
}


def split_seeds(split: str, count: int, *, start: int = 0) -> list[int]:
    """`count` seeds of one of `SPLITS`, from position `start`.

    Raises:
        ValueError: there is no such split, or it has fewer scenes than that.
    """
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; there are: {', '.join(SPLITS)}")
    found = SPLITS[split]
    if start + count > found.count:
        raise ValueError(f"the split {split!r} ends at {found.count} scenes")
    return list(range(found.first + start, found.first + start + count))


def split_scene(seed: int, *, world: int = WORLD_VERSION) -> SplitScene:
    """A scene of the world as split files know it; each is a place of its own."""
    name = f"world-{world}/{seed}"
    identity = hashlib.sha256(name.encode()).hexdigest()
    official = next(
        (side for side, each in SPLITS.items() if each.first <= seed < each.first + each.count),
        None,
    )
    return SplitScene(name, name, identity, official)


def spec_of_seeds(seeds: Iterable[int]) -> WorldSpec:
    """What the scenes of the seeds may contain; seeds outside every split are like training's.

    Raises:
        ValueError: the seeds are from different families.
    """
    specs = [_spec(int(seed)) for seed in seeds]
    if any(spec is not specs[0] for spec in specs):
        raise ValueError("seeds of different families of scenes: sample each family on its own")
    return specs[0] if specs else TRAIN


def _spec(seed: int) -> WorldSpec:
    for split in SPLITS.values():
        if split.first <= seed < split.first + split.count:
            return split.spec
    return TRAIN
