"""Folders of published weights in diffusers' layout, as files. Needs no torch."""

from __future__ import annotations

import functools
import json
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from explorer.backbones._options import Target
from explorer.backbones._weight_files import listed, weight_files
from explorer.backbones._weights import fingerprint
from explorer.backbones.base import Hashes
from explorer.errors import BackboneError

_names_only: ContextVar[bool] = ContextVar("names_only", default=False)


def component(folder: Path, name: str, *, what: str) -> list[Path]:
    """[config.json, weights, ...] of one part of a model ("transformer", "vae"; "" for the root).

    Of several copies of the weights, the one that `_weight_files` says.

    Raises:
        BackboneError: a file is missing, or a shard of the weights.
    """
    part = folder / name
    config, weights = part / "config.json", weight_files(part)
    if not config.is_file() or not weights.files:
        wanted = "*.safetensors" if config.is_file() else "config.json"
        raise BackboneError(
            f"there is no {wanted} in {part}: --weights needs a folder laid out like {what}"
        )
    if weights.missing:
        raise BackboneError(
            f"the weights in {part} are not whole, they lack {listed(weights.missing)}: "
            "fetch them again, what is there is kept"
        )
    return [config, *weights.files]


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
    target: Target,
    *,
    what: str,
    network: tuple[str, ...],
    encoder: str | None,
    prompt: str = "",
) -> Hashes:
    """Hashes of a model's parts, with what else changes their output.

    Args:
        target: with its folder.
        what: the repository, for messages.
        network: parts besides the encoder.
        encoder: the part with the VAE; None where there is none.
        prompt: what its embedding comes from (`_prompt_files.origin`); empty without text.

    Raises:
        BackboneError: a file is missing.
    """
    folder = target.folder
    parts = [path for name in network for path in component(folder, name, what=what)]
    if encoder is None:
        return Hashes(_key(folder, parts, f"prompt {target.prompt!r} {prompt}"), None)
    vae = component(folder, encoder, what=what)
    return file_hashes(target, network=parts, encoder=vae, prompt=prompt)


def file_hashes(
    target: Target, *, network: list[Path], encoder: list[Path], prompt: str = ""
) -> Hashes:
    """The same for a model whose files are not laid out in parts."""
    folder, recipe = target.folder, target.encoder_recipe
    asked = f"{recipe}, prompt {target.prompt!r} {prompt}"
    return Hashes(_key(folder, [*network, *encoder], asked), _key(folder, encoder, recipe))


def files_hash(folder: Path, paths: list[Path]) -> str:
    """sha256 that identifies files of a folder; found again at once while they do not change."""
    return _key(folder, paths, "")


@contextmanager
def names_only() -> Iterator[None]:
    """Hashes are asked for inside to learn whether all files are there: none of them is read."""
    token = _names_only.set(True)
    try:
        yield
    finally:
        _names_only.reset(token)


def _key(folder: Path, paths: list[Path], recipe: str) -> str:
    stamp = tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
    if _names_only.get():
        return ""
    return _digest(folder, stamp, recipe)


@functools.lru_cache(maxsize=64)
def _digest(folder: Path, stamp: tuple[tuple[Path, int, int], ...], recipe: str) -> str:
    import hashlib

    files = fingerprint([path for path, _, _ in stamp], folder)
    return hashlib.sha256(f"{files} {recipe}".encode()).hexdigest()
