"""Weights of networks that are published as one file beside a config.json. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from explorer.backbones import _cards, _published
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard, Hashes
from explorer.errors import BackboneError

NAMES = ("model.safetensors", "model.pt", "model.pth")
"""In the order of preference: a torch file is read as tensors only."""


def weights_file(folder: Path, *, what: str) -> Path:
    """The file of weights in a folder.

    Raises:
        BackboneError: there is none.
    """
    for name in NAMES:
        if (folder / name).is_file():
            return folder / name
    raise BackboneError(
        f"there is no {' or '.join(NAMES)} in {folder}: --weights needs a folder laid out like "
        f"{what}"
    )


def config(folder: Path) -> dict[str, Any]:
    """What config.json says; nothing where there is none, which means the released sizes.

    Raises:
        BackboneError: it cannot be read.
    """
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path} cannot be read ({error}): fetch it again") from None
    return found


def hashes(target: Target, *, what: str) -> Hashes:
    """The fingerprint of weights and configuration.

    Raises:
        BackboneError: there are no weights.
    """
    folder = target.folder
    files = [weights_file(folder, what=what)]
    if (folder / "config.json").is_file():
        files.append(folder / "config.json")
    return Hashes(_published.files_hash(folder, files), None)


def adapt(
    card: BackboneCard,
    folder: Path,
    *,
    what: str,
    unused: tuple[str, ...],
    layers: int,
    width: int,
    patch: int,
) -> BackboneCard:
    """The card of the weights in a folder.

    The weights of a torch file are not counted: that would read it.

    Raises:
        BackboneError: there are no weights, or they are broken.
    """
    path = weights_file(folder, what=what)
    counted = card.parameters
    if path.suffix == ".safetensors":
        counted = _published.count_parameters([path], unused=unused)
    rows, columns = (size // patch for size in card.input_size)
    return _cards.resized(
        card,
        layers=layers,
        width=width,
        parameters=counted,
        patch=patch,
        input_size=(rows * patch, columns * patch),
    )
