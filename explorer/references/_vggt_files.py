"""Finding the weights of a VGGT and what they are of. Needs no torch."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explorer.backbones._options import Source
from explorer.backbones._weights import fingerprint
from explorer.errors import ReferenceError3D
from explorer.references import _published

NAME = "vggt"
BACKBONE = "vggt-1b"
"""The same weights as features: whoever has put them there for these has them here."""
FILES = ("model.safetensors", "model.pt")
SOURCE = Source("facebook/VGGT-1B", FILES, 5_030_000_000)


@dataclass(frozen=True)
class Weights:
    """Files of one network.

    Attributes:
        folder: where they are.
        path: of the weights, safetensors or a torch file.
        config: fields of `VGGTConfig` that differ from VGGT-1B's.
        input_size, map_size: (height, width) that it was trained on, where a card.json says so.
        digest: of weights and configuration.
    """

    folder: Path
    path: Path
    config: dict[str, Any]
    input_size: tuple[int, int] | None
    map_size: tuple[int, int] | None
    digest: str


def published() -> Weights:
    """VGGT-1B, or another size of it: $EMERGE3D_WEIGHTS/vggt or /vggt-1b, else the hub's cache.

    Raises:
        ReferenceError3D: it is not on this machine; says how to get it.
    """
    return in_folder(_published.find(NAME, SOURCE, also=(BACKBONE,)))


def in_folder(folder: Path) -> Weights:
    """The network in a folder with model.safetensors or model.pt, else any one such file.

    A config.json with the fields of `VGGTConfig` says its sizes; any other is of VGGT-1B. A
    card.json may name the sizes of input and maps, (height, width) each.

    Raises:
        ReferenceError3D: files are missing or cannot be read.
    """
    named = [folder / name for name in FILES if (folder / name).is_file()]
    others = sorted([*folder.glob("*.safetensors"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    if not named and len(others) != 1:
        raise ReferenceError3D(
            f"{folder} holds {len(others) or 'no'} files of weights: put one there, named "
            f"{' or '.join(FILES)}"
        )
    path = (named or others)[0]
    card_path = folder / "card.json"
    config, card = _read(folder / "config.json"), _read(card_path)
    patch = config.get("patch", 14)
    sizes = {
        key: tuple(value) if isinstance(value, list) else value for key, value in config.items()
    }
    return Weights(
        folder=folder,
        path=path,
        config=sizes if "dpt_layers" in sizes else {},
        input_size=_size(card.get("input"), patch, card_path),
        map_size=_size(card.get("maps"), 1, card_path),
        digest=_digest(path, path.stat().st_mtime_ns, path.stat().st_size, json.dumps(config)),
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReferenceError3D(f"{path} cannot be read ({error}): fetch it again") from None
    return found if isinstance(found, dict) else {}


def _size(value: Any, multiple: Any, card: Path) -> tuple[int, int] | None:
    if value is None:
        return None
    try:
        height, width = map(int, value)
        whole = min(height, width) > 0 and not height % multiple and not width % multiple
    except (TypeError, ValueError):
        whole = False
    if not whole:
        raise ReferenceError3D(
            f"{card}: {value} is no height and width in multiples of {multiple}: fetch it again"
        )
    return height, width


@functools.lru_cache(maxsize=16)
def _digest(path: Path, changed: int, size: int, config: str) -> str:
    import hashlib

    return hashlib.sha256(f"{fingerprint([path], path.parent)} {config}".encode()).hexdigest()
