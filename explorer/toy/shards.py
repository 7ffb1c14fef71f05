"""Checkpoints in safetensors shards of at most 15 MB, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

LIMIT = 15_000_000


def save_shards(
    tensors: dict[str, Tensor], folder: Path, name: str, card: dict[str, Any], *, limit: int = LIMIT
) -> list[Path]:
    """Write `name-00001.safetensors`, ... and `name.json` (the card with the list of shards).

    The card is written last, so a folder with a card is complete.
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
    paths = []
    for index, group in enumerate(groups):
        path = folder / f"{name}-{index + 1:05d}.safetensors"
        temporary = path.with_suffix(".tmp")
        save_file(group, temporary)
        _replace(temporary, path)
        paths.append(path)
    temporary = folder / f"{name}.tmp"
    temporary.write_text(json.dumps({**card, "shards": [p.name for p in paths]}, indent=1))
    _replace(temporary, folder / f"{name}.json")
    return paths


def _replace(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as handle:
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def load_shards(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, card) of a checkpoint.

    Raises:
        FileNotFoundError: no complete checkpoint of that name in the folder.
    """
    card = json.loads((folder / f"{name}.json").read_text())
    tensors: dict[str, Tensor] = {}
    for shard in card["shards"]:
        tensors.update(load_file(folder / shard))
    return tensors, card


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
