"""Checkpoints in safetensors shards of at most 15 MB, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from explorer._atomic import replace_file

LIMIT = 15_000_000


def save_shards(
    tensors: dict[str, Tensor], folder: Path, name: str, card: dict[str, Any], *, limit: int = LIMIT
) -> list[Path]:
    """Write `name-00001-<hash>.safetensors`, ... and `name.json`, the card with the shards' hashes.

    Shards are named by their content and the card is replaced last, so at any time the card names
    a whole checkpoint: the old one or the new one. Shards of the old one are then removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, tensor in tensors.items():
        bytes_ = tensor.numel() * tensor.element_size()
        if groups[-1] and size + bytes_ > limit:
            groups.append({})
            size = 0
        groups[-1][key] = tensor.detach().cpu().contiguous()
        size += bytes_
    hashes: dict[str, str] = {}
    for index, group in enumerate(groups):
        content = save(group)
        digest = hashlib.sha256(content).hexdigest()
        shard = f"{name}-{index + 1:05d}-{digest[:8]}.safetensors"
        hashes[shard] = digest
        replace_file(folder / shard, content)
    replace_file(folder / f"{name}.json", json.dumps({**card, "shards": hashes}, indent=1).encode())
    for stale in folder.glob(f"{name}-*.safetensors"):
        if stale.name not in hashes:
            stale.unlink()
    return [folder / shard for shard in hashes]


def load_shards(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, card) of a checkpoint.

    Raises:
        FileNotFoundError: no checkpoint of that name in the folder.
        ValueError: a shard is not the one that the card describes.
    """
    card = json.loads((folder / f"{name}.json").read_text())
    tensors: dict[str, Tensor] = {}
    for shard, digest in card["shards"].items():
        content = (folder / shard).read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"{folder / shard} is damaged: resume from an earlier checkpoint")
        tensors.update(load(content))
    return tensors, card


def load_checkpoint(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(float32 tensors, card) of a run's folder, or of a shipped model's (assets/models/toy-wan).

    Raises:
        FileNotFoundError: the folder is neither.
        ValueError: a shard is not the one that its card describes.
    """
    if (folder / f"{name}.json").is_file():
        tensors, card = load_shards(folder, name)
    else:
        card = json.loads((folder / "card.json").read_text())["runs"][name]
        tensors = {}
        part = folder / name
        for path in sorted((part if part.is_dir() else folder).glob("*.safetensors")):
            tensors.update(load(path.read_bytes()))
    return {key: value.float() for key, value in tensors.items()}, card


class Average:
    """Exponential moving average of a module's parameters (EMA), kept in float32."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._module = module
        self.values = {k: v.detach().clone().float() for k, v in module.named_parameters()}
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Follow the module; early on the average forgets faster than its decay says."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        names = list(self.values)
        current = dict(self._module.named_parameters())
        torch._foreach_lerp_(
            [self.values[n] for n in names], [current[n].detach().float() for n in names], 1 - decay
        )

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Put the averaged weights into a module of the same structure."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.values[name])
