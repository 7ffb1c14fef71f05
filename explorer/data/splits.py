"""Splits of a dataset: which scenes train and which test, as files with hashes.

A place is on one side with all its scenes, so that no probe is tested in a room that it was trained
in. Which side depends on the place's name and a seed alone: scenes that are added later move no
other. Where a dataset has official sides, these count.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from explorer._atomic import replace_file
from explorer.errors import SplitError

FORMAT = "emerge3d-split-1"
TRAIN, TEST = "train", "test"
FRACTIONS = {TRAIN: 0.9, TEST: 0.1}
"""The published protocol's: nine of ten train."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SplitScene:
    """One scene as a split knows it.

    Attributes:
        scene: its name, unique in the split.
        place: what must not be on two sides: a room, an object, a town square. Scenes of one place
            name it alike.
        identity: sha256 over what the scene is made of; the same recording under another name has
            the same.
        official: the side that the dataset's authors put it on, or None.
    """

    scene: str
    place: str
    identity: str
    official: str | None = None


@dataclass(frozen=True)
class Split:
    """Scenes on named sides that share nothing.

    Attributes:
        name: for people, usually the dataset's.
        seed: of the sides of places without an official one.
        fractions: wanted share of the places, by side.
        sides: scenes of each side, sorted by name.

    Raises:
        SplitError: a scene, a place or a recording is on two sides, or twice on one.
    """

    name: str
    seed: int
    fractions: dict[str, float]
    sides: dict[str, tuple[SplitScene, ...]]

    def __post_init__(self) -> None:
        names = Counter(each.scene for side in self.sides.values() for each in side)
        for name, count in names.items():
            if count > 1:
                raise SplitError(f"the split {self.name} names the scene {name} twice: remove one")
        order = list(self.sides)
        for number, first in enumerate(order):
            for second in order[number + 1 :]:
                check_apart(self.sides[first], self.sides[second], names=(first, second))

    @property
    def sha256(self) -> str:
        """Of everything that the split says; a probe's card names its training split by it."""
        return hashlib.sha256(_canonical(self._values()).encode()).hexdigest()

    @property
    def reference(self) -> dict[str, str]:
        """What a probe's card says about it, as `data["split"]`."""
        return {"name": self.name, "sha256": self.sha256}

    def side(self, scene: str) -> str | None:
        """The side of a scene, or None for one that the split does not know."""
        return self._side_of.get(scene)

    @cached_property
    def _side_of(self) -> dict[str, str]:
        return {each.scene: side for side, scenes in self.sides.items() for each in scenes}

    def _values(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "name": self.name,
            "seed": self.seed,
            "fractions": self.fractions,
            "sides": {side: [asdict(each) for each in each_of] for side, each_of in self._sorted()},
        }

    def _sorted(self) -> list[tuple[str, list[SplitScene]]]:
        sides = sorted(self.sides.items())
        return [(side, sorted(scenes, key=lambda each: each.scene)) for side, scenes in sides]


def make_split(
    scenes: Iterable[SplitScene],
    *,
    name: str,
    seed: int = 0,
    fractions: Mapping[str, float] | None = None,
    official: bool = True,
) -> Split:
    """Put every scene on a side.

    Args:
        scenes: in any order.
        name: of the split.
        seed: another one gives other sides.
        fractions: share of the places by side; nine of ten train when None.
        official: keep the sides of the dataset's authors where there are some. The other scenes of
            such a place go with it.

    Raises:
        SplitError: fractions that are none, official sides that share a place, a scene or
            recording that would be on two sides.
    """
    shares = dict(FRACTIONS if fractions is None else fractions)
    _check_fractions(shares)
    known = list(scenes)
    given = _official_sides(known) if official else {}
    sides: dict[str, list[SplitScene]] = {side: [] for side in {*shares, *given.values()}}
    for each in sorted(known, key=lambda each: each.scene):
        side = given.get(each.place) or side_of(each.place, seed=seed, fractions=shares)
        sides[side].append(each)
    return Split(name, seed, shares, {side: tuple(each) for side, each in sorted(sides.items())})


def extend_split(split: Split, scenes: Iterable[SplitScene], *, official: bool = True) -> Split:
    """The split with more scenes; those that it knows stay where they are.

    Raises:
        SplitError: the new scenes' official sides would move an old one, or are on both sides.
    """
    old = [each for side in split.sides.values() for each in side]
    known = {each.scene for each in old}
    more = [each for each in scenes if each.scene not in known]
    grown = make_split(
        [*old, *more], name=split.name, seed=split.seed, fractions=split.fractions,
        official=official,
    )  # fmt: skip
    moved = [each for each in old if split.side(each.scene) != grown.side(each.scene)]
    if moved:
        raise SplitError(
            f"adding scenes would move {_some(each.scene for each in moved)} to another side of "
            f"the split {split.name}, which probes may have been trained on: make a new split"
        )
    return grown


def side_of(place: str, *, seed: int, fractions: Mapping[str, float]) -> str:
    """The side of a place by its hash: the same whatever else is in the dataset.

    Sides divide [0, 1) in the order of their names.
    """
    digest = hashlib.sha256(f"{seed}\0{place}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2.0**64
    names = sorted(name for name, share in fractions.items() if share > 0)
    reached = 0.0
    for name in names:
        reached += fractions[name]
        if position < reached:
            return name
    return names[-1]  # the fractions sum to a hair under 1


def write_split(path: Path, split: Split) -> None:
    """Write a split with its hash; the file is the old or the new one at any time."""
    values = {**split._values(), "sha256": split.sha256}
    replace_file(path, (json.dumps(values, indent=1, sort_keys=True) + "\n").encode())


def read_split(path: Path) -> Split:
    """A split out of its file, hash and separation checked.

    Raises:
        SplitError: missing, not a split, changed since it was written, or sides that share
            something.
    """
    try:
        values = json.loads(path.read_text())
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {values['format']!r}, not {FORMAT}")
        split = Split(
            name=values["name"],
            seed=values["seed"],
            fractions=values["fractions"],
            sides={
                side: tuple(SplitScene(**each) for each in scenes)
                for side, scenes in values["sides"].items()
            },
        )
        stated = values["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SplitError(f"{path} is not a split of a dataset ({error!r}): make it again") from None
    if split.sha256 != stated:
        raise SplitError(
            f"{path} was changed since it was written: its content hashes to {split.sha256[:12]}, "
            f"not {str(stated)[:12]}; restore it or make another split"
        )
    return split


def check_apart(
    train: Sequence[SplitScene],
    test: Sequence[SplitScene],
    *,
    names: tuple[str, str] = (TRAIN, TEST),
) -> None:
    """Nothing, when two sides share neither a scene nor a place nor a recording.

    Raises:
        SplitError: they do; says what.
    """
    for field, what in (("scene", "scenes"), ("place", "places"), ("identity", "recordings")):
        mine = {getattr(each, field): each.scene for each in train}
        shared = [each for each in test if getattr(each, field) in mine]
        if shared:
            pairs = (f"{mine[getattr(each, field)]} and {each.scene}" for each in shared)
            raise SplitError(
                f"{names[0]} and {names[1]} share {what}: {_some(sorted(pairs))}; what is tested "
                "must never have been trained on"
            )


def check_reference(value: Any) -> None:
    """Nothing, when a value is what a card may say as `data["split"]`; see `Split.reference`.

    Raises:
        SplitError: it is something else.
    """
    whole = (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and isinstance(value.get("sha256"), str)
        and _SHA256.fullmatch(value["sha256"]) is not None
    )
    if not whole:
        raise SplitError(f'a split is named by {{"name", "sha256"}}, not {value!r}')


def _official_sides(scenes: Sequence[SplitScene]) -> dict[str, str]:
    """Side of each place that has an official one."""
    sides: dict[str, SplitScene] = {}
    for each in scenes:
        if each.official is None:
            continue
        first = sides.setdefault(each.place, each)
        if first.official != each.official:
            raise SplitError(
                f"the official split has the place {each.place} on two sides ({first.scene}: "
                f"{first.official}, {each.scene}: {each.official}): it does not separate places, "
                "so divide by place instead"
            )
    return {place: str(each.official) for place, each in sides.items()}


def _check_fractions(fractions: Mapping[str, float]) -> None:
    whole = all(share >= 0 for share in fractions.values())
    if not whole or abs(sum(fractions.values()) - 1.0) > 1e-9:
        raise SplitError(f"fractions {dict(fractions)}: give shares of 0 or more that sum to 1")


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _some(words: Iterable[str], most: int = 3) -> str:
    listed = list(words)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
