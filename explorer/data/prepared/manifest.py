"""`manifest.json` of a store: how its clips were made, what they lost, and what failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from explorer._atomic import lock, replace_file
from explorer.data.prepared.codes import LOSSLESS
from explorer.errors import DatasetError

FORMAT = "emerge3d-prepared-1"
MARK = b"emerge3d-prepared-"
NAME = "manifest.json"
SPLIT_NAME = "split.json"
_LOCK_NAME = ".lock"


@dataclass(frozen=True)
class Settings:
    """What must be the same for all clips of a store.

    Attributes:
        dataset: id of the reader.
        reference: id of the reference.
        frames: of each clip.
        stride: distance between them, in frames of the scene.
        size: (height, width) that the reference sees.
        scale: pictures are kept up to so many times as large as `size`, as far as the scene has
            pixels.
        quality: of the pictures, 1 to 100 for JPEG, `codes.LOSSLESS` for PNG.

    Raises:
        DatasetError: a number that makes no sense.
    """

    dataset: str
    reference: str
    frames: int = 81
    stride: int = 1
    size: tuple[int, int] = (294, 518)
    scale: float = 2.0
    quality: int = 95

    def __post_init__(self) -> None:
        if min(self.frames, self.stride, self.scale, *self.size) < 1:
            raise DatasetError(f"frames, stride, scale and size must be 1 or more: {self}")
        if not 1 <= self.quality <= LOSSLESS:
            raise DatasetError(f"a picture quality of {self.quality}: give 1 to 100")

    def differences(self, other: Settings) -> list[str]:
        """What two differ in, for people."""
        pairs = zip(asdict(self).items(), asdict(other).values(), strict=True)
        return [f"{name} {theirs}, not {mine}" for (name, mine), theirs in pairs if mine != theirs]


@dataclass(frozen=True)
class Manifest:
    """The content of the file.

    Attributes:
        settings: of all clips.
        split_seed: of the sides of places.
        official: whether the dataset's own sides count; they do not where they share places, or
            nobody wants them.
        failed: why, by scene.
        weights: sha256 of the reference's weights, once a clip has told; None for a reference
            without any.
        summary: of the clips, as counted when the file was written; for people.
    """

    settings: Settings
    split_seed: int = 0
    official: bool = True
    failed: dict[str, str] = field(default_factory=dict)
    weights: str | None = None
    summary: dict[str, Any] = field(default_factory=dict)

    def write(self, root: Path) -> None:
        """Put it into a store's folder; the file is the old or the new one at any time."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1, allow_nan=False)
        replace_file(root / NAME, (text + "\n").encode())


def read_manifest(root: Path) -> Manifest:
    """The manifest of a store.

    Raises:
        DatasetError: there is none, or it is broken or of another version.
    """
    path = root / NAME
    try:
        values = json.loads(path.read_text())
        if values.pop("format") != FORMAT:
            raise ValueError("it is of another version")
        settings = values.pop("settings")
        settings |= {"size": tuple(settings["size"]), "scale": float(settings["scale"])}
        return Manifest(Settings(**settings), **values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path} is no manifest of prepared data ({error!r})") from None


def start_manifest(
    root: Path, settings: Settings, *, split_seed: int | None = None, by_place: bool = False
) -> Manifest:
    """The manifest of a store to go on with; a new one in a folder that holds nothing else.

    Another seed, or sides by place for those of the dataset, divide a store anew: its split's file
    is removed. What was trained on the old sides keeps that file beside it.

    Args:
        root: folder of the store.
        settings: of all its clips.
        split_seed: None keeps that of the store; 0 for a new one.
        by_place: leave the dataset's own sides alone.

    Raises:
        DatasetError: the folder was prepared with other settings, or holds other things.
    """
    if (root / NAME).is_file():
        found = read_manifest(root)
        differences = found.settings.differences(settings)
        if differences:
            raise DatasetError(
                f"{root} was prepared with other settings (you ask for {'; '.join(differences)}): "
                "choose another folder, or the same settings"
            )
        seed = found.split_seed if split_seed is None else split_seed
        wanted = replace(found, split_seed=seed, official=found.official and not by_place)
        if wanted != found:
            (root / SPLIT_NAME).unlink(missing_ok=True)
            wanted.write(root)
        return wanted
    root.mkdir(parents=True, exist_ok=True)
    others = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    if others:
        raise DatasetError(
            f"{root} holds other things ({', '.join(others[:3])}): choose a new folder"
        )
    new = Manifest(settings, split_seed or 0, not by_place)
    new.write(root)
    return new


def with_failure(manifest: Manifest, scene: str, reason: str | None) -> Manifest:
    """With a scene among the failed ones, or without it where there is no reason."""
    failed = {name: why for name, why in manifest.failed.items() if name != scene}
    if reason is not None:
        failed[scene] = reason
    return replace(manifest, failed=failed)


@contextmanager
def sole_writer(root: Path) -> Iterator[None]:
    """Nobody else fills this store meanwhile; the system frees it when a process dies.

    Raises:
        DatasetError: somebody does.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / _LOCK_NAME).open("a") as file:
        if not lock(file):
            raise DatasetError(f"{root} is being filled by another process: wait for it or stop it")
        yield
