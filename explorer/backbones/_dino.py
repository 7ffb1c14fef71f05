"""transformers' DINOv2 and DINOv3 on the frames of a clip, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model, DINOv3ViTConfig, DINOv3ViTModel

from explorer._typing import Float, Int
from explorer.backbones import _tiny
from explorer.backbones._encoder import EncoderBackbone, load_network
from explorer.backbones._encoder_published import Family
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard

CHUNK = 8
"""Frames in one pass: memory does not grow with the clip."""
RENAMED = {
    "attention.attention.query.": "attention.q_proj.",
    "attention.attention.key.": "attention.k_proj.",
    "attention.attention.value.": "attention.v_proj.",
    "attention.output.dense.": "attention.o_proj.",
    "mlp.weights_out.": "mlp.down_proj.",
}
"""Names in the published DINOv2 files, and those that transformers gives the modules since."""
PACKED = "mlp.weights_in."
"""Gate and up projection of a SwiGLU, one over the other."""


class Dinov2Network(nn.Module):
    """The parts of a Dinov2Model, with its blocks where offloading finds them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embeddings = model.embeddings
        self.layer = model.encoder.layer
        self.layernorm = model.layernorm

    def forward(self, pixels: Float[torch.Tensor, "B 3 H W"]) -> Float[torch.Tensor, "B N D"]:
        """(B, 1 + h*w, D) tokens after the final norm, the class token first."""
        tokens = self.embeddings(pixels)
        for block in self.layer:
            tokens = block(tokens)
        normed: torch.Tensor = self.layernorm(tokens)
        return normed


class Dinov3Network(nn.Module):
    """The parts of a DINOv3ViTModel, with its blocks where offloading finds them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embeddings = model.embeddings
        self.rope_embeddings = model.rope_embeddings
        self.layer = model.model.layer
        self.norm = model.norm

    def forward(self, pixels: Float[torch.Tensor, "B 3 H W"]) -> Float[torch.Tensor, "B N D"]:
        """(B, 1 + registers + h*w, D) tokens after the final norm."""
        tokens = self.embeddings(pixels)
        rotation = self.rope_embeddings(pixels)
        for block in self.layer:
            tokens = block(tokens, position_embeddings=rotation)
        normed: torch.Tensor = self.norm(tokens)
        return normed


class DinoBackbone(EncoderBackbone):
    """Each frame alone; class and register tokens are left out."""

    def __init__(
        self,
        card: BackboneCard,
        transformer: Any,
        *,
        weights_hash: str,
        device: str,
        special: int,
    ) -> None:
        super().__init__(card, transformer, weights_hash=weights_hash, device=device)
        self.special = special

    @property
    def blocks(self) -> Sequence[Any]:
        network = self.transformer
        final = network.norm if isinstance(network, Dinov3Network) else network.layernorm
        return [*network.layer, final]

    def passes(self, count: int) -> list[Int[np.ndarray, " n"]]:
        return [np.arange(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]

    def run(self, frames: Float[torch.Tensor, "n 3 H W"]) -> object:
        return self.transformer(frames)

    def tapped(self, block: Any, tap: str) -> nn.Module:
        attention = block.attention
        module: nn.Module = {"query": attention.q_proj, "key": attention.k_proj}[tap]
        return module


def rename_dinov2(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """A tensor of a published file under the names of `Dinov2Network`."""
    name = name.removeprefix("dinov2.").removeprefix("encoder.")
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    if PACKED in name:
        for part, values in zip(("gate_proj", "up_proj"), tensor.chunk(2), strict=True):
            yield name.replace(PACKED, f"mlp.{part}."), values
        return
    yield name, tensor


def rename_dinov3(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """A tensor of a published file under the names of `Dinov3Network`."""
    yield name.removeprefix("model."), tensor


def load_dinov2(card: BackboneCard, target: Target, family: Family) -> DinoBackbone:
    """The model in a folder.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    network = load_network(
        family,
        target,
        config_class=Dinov2Config,
        make=lambda config: Dinov2Network(Dinov2Model(config)),
        rename=rename_dinov2,
    )
    found = family.hashes(target).weights
    return DinoBackbone(card, network, weights_hash=found, device=target.device, special=1)


def load_dinov3(card: BackboneCard, target: Target, family: Family) -> DinoBackbone:
    """The model in a folder.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    network = load_network(
        family,
        target,
        config_class=DINOv3ViTConfig,
        make=lambda config: Dinov3Network(DINOv3ViTModel(config)),
        rename=rename_dinov3,
        tables=True,
    )
    special = 1 + network.embeddings.register_tokens.shape[1]
    found = family.hashes(target).weights
    return DinoBackbone(card, network, weights_hash=found, device=target.device, special=special)


def write_tiny_dinov2(folder: Path, **changes: Any) -> None:
    """Random weights of a tiny DINOv2 in the published layout; `changes` go into config.json."""
    settings: dict[str, Any] = {
        "hidden_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "image_size": 70,
        "use_swiglu_ffn": True,
        **changes,
    }
    _write(Dinov2Model(Dinov2Config(**settings)), folder)


def write_tiny_dinov3(folder: Path, **changes: Any) -> None:
    """Random weights of a tiny DINOv3 in the published layout; `changes` go into config.json."""
    settings: dict[str, Any] = {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_register_tokens": 4,
        **changes,
    }
    _write(DINOv3ViTModel(DINOv3ViTConfig(**settings)), folder)


def _write(model: Any, folder: Path) -> None:
    _tiny.randomize(model, torch.Generator().manual_seed(0))
    model.save_pretrained(folder)
