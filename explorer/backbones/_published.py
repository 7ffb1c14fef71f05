"""Folders of published weights in diffusers' layout, as files. Needs no torch."""

from __future__ import annotations

import functools
import json
import math
import struct
from pathlib import Path
from typing import Any

from explorer.backbones._options import Target
from explorer.backbones._weights import fingerprint
from explorer.backbones.base import Hashes
from explorer.errors import BackboneError


def component(folder: Path, name: str, *, what: str) -> list[Path]:
    """[config.json, weights, ...] of one part of a model ("transformer", "vae"; "" for the root).

    Weights are safetensors, or where there are none, torch files.

    Raises:
        BackboneError: a file is missing.
    """
    part = folder / name
    config = part / "config.json"
    weights = sorted(part.glob("*.safetensors")) or sorted(part.glob("*.bin"))
    for found, wanted in ((config.is_file(), "config.json"), (bool(weights), "*.safetensors")):
        if not found:
            raise BackboneError(
                f"there is no {wanted} in {part}: --weights needs a folder laid out like {what}"
            )
    return [config, *weights]


def config_of(folder: Path, name: str, *, what: str) -> dict[str, Any]:
    """The configuration of one part.

    Raises:
        BackboneError: it is missing or not JSON.
    """
    path = component(folder, name, what=what)[0]
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path} cannot be read ({error}): fetch it again") from None
    return config


def count_parameters(paths: list[Path], *, unused: tuple[str, ...] = ()) -> int:
    """Number of values in safetensors files, from their headers, or in mapped torch files.

    Args:
        paths: the files.
        unused: tensors whose names begin like this are not counted.

    Raises:
        BackboneError: a file is damaged.
    """
    return sum(_count(path, path.stat().st_mtime_ns, unused) for path in paths)


@functools.lru_cache(maxsize=256)
def _count(path: Path, changed: int, unused: tuple[str, ...]) -> int:
    if path.suffix != ".safetensors":
        from explorer.backbones._torch_files import read_state

        state = read_state(path)
        return sum(value.numel() for name, value in state.items() if not name.startswith(unused))
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise BackboneError(f"{path} is broken ({error}): fetch it again") from None
    return sum(
        math.prod(entry["shape"])
        for name, entry in header.items()
        if not name.startswith(("__metadata__", *unused))
    )


def component_hashes(
    target: Target, *, what: str, network: tuple[str, ...], encoder: str | None
) -> Hashes:
    """Hashes of a model's parts, with what else changes their output.

    Args:
        target: with its folder.
        what: the repository, for messages.
        network: parts besides the encoder.
        encoder: the part with the VAE; None where there is none.

    Raises:
        BackboneError: a file is missing.
    """
    folder = target.folder
    parts = [path for name in network for path in component(folder, name, what=what)]
    if encoder is None:
        return Hashes(_key(folder, parts, f"prompt {target.prompt!r}"), None)
    return file_hashes(target, network=parts, encoder=component(folder, encoder, what=what))


def file_hashes(target: Target, *, network: list[Path], encoder: list[Path]) -> Hashes:
    """The same for a model whose files are not laid out in parts."""
    folder, recipe = target.folder, target.encoder_recipe
    whole = _key(folder, [*network, *encoder], f"{recipe}, prompt {target.prompt!r}")
    return Hashes(whole, _key(folder, encoder, recipe))


def files_hash(folder: Path, paths: list[Path]) -> str:
    """sha256 that identifies files of a folder; found again at once while they do not change."""
    return _key(folder, paths, "")


def _key(folder: Path, paths: list[Path], recipe: str) -> str:
    stamp = tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
    return _digest(folder, stamp, recipe)


@functools.lru_cache(maxsize=64)
def _digest(folder: Path, stamp: tuple[tuple[Path, int, int], ...], recipe: str) -> str:
    import hashlib

    files = fingerprint([path for path, _, _ in stamp], folder)
    return hashlib.sha256(f"{files} {recipe}".encode()).hexdigest()
