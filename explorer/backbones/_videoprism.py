"""transformers' VideoPrism encoder on a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import VideoPrismVisionConfig, VideoPrismVisionModel

from explorer._typing import Float, Int, UInt8
from explorer.backbones import _tiny
from explorer.backbones._encoder import EncoderBackbone, load_network
from explorer.backbones._encoder_published import Family
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard


class VideoPrismNetwork(nn.Module):
    """The parts of a VideoPrismVisionModel, with its blocks where offloading finds them."""

    # Tables of positions are interpolated, for which torch has no bfloat16 on a CPU.
    _keep_in_fp32_modules = ("position_embeddings",)

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.spatial_layers = model.spatial_layers  # first: their dtype is that of the network
        self.temporal_layers = model.temporal_layers
        self.spatial_embeddings = model.spatial_embeddings
        self.temporal_embeddings = model.temporal_embeddings
        self.layernorm1 = model.layernorm1
        self.layernorm2 = model.layernorm2

    def forward(self, frames: Float[torch.Tensor, "B T 3 H W"]) -> Float[torch.Tensor, "N T D"]:
        """(B * h * w, T, D) tokens after the final norm: blocks within frames, then over time."""
        tokens = self.spatial_embeddings(frames, True).type_as(frames)
        for block in self.spatial_layers:
            tokens = block(tokens)
        tokens = self.temporal_embeddings(self.layernorm1(tokens), frames.shape, True)
        tokens = tokens.type_as(frames)
        for block in self.temporal_layers:
            tokens = block(tokens)
        normed: torch.Tensor = self.layernorm2(tokens)
        return normed


class VideoPrismBackbone(EncoderBackbone):
    """The video encoder behind the one `extract`; every frame has its own tokens."""

    @property
    def blocks(self) -> Sequence[Any]:
        network = self.transformer
        return [*network.spatial_layers, *network.temporal_layers, network.layernorm2]

    def passes(self, count: int) -> list[Int[np.ndarray, " n"]]:
        return [np.arange(count)]

    def pixels(self, frames: UInt8[np.ndarray, "n H W 3"]) -> Float[torch.Tensor, "n 3 H W"]:
        """Channels first, in [0, 1]: this network was trained without further scaling."""
        values = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)
        return (values.permute(0, 3, 1, 2).float() / 255).contiguous()

    def run(self, frames: Float[torch.Tensor, "n 3 H W"]) -> object:
        return self.transformer(frames[None])

    def tapped(self, block: Any, tap: str) -> nn.Module:
        attention = block.attention
        module: nn.Module = {"query": attention.q_proj, "key": attention.k_proj}[tap]
        return module

    def placed_at(self, layer: int, output: Any) -> Float[torch.Tensor, "s h w C"]:
        """Blocks within frames see a sequence for each frame, those over time for each place."""
        in_frames = layer < len(self.transformer.spatial_layers)
        return self.placed(output if in_frames else output.transpose(0, 1))


def rename(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Published files have the names of the network."""
    yield name, tensor


def load(card: BackboneCard, target: Target, family: Family) -> VideoPrismBackbone:
    """The encoder in a folder.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    network = load_network(
        family,
        target,
        config_class=VideoPrismVisionConfig,
        make=lambda config: VideoPrismNetwork(VideoPrismVisionModel(config)),
        rename=rename,
    )
    found = family.hashes(target).weights
    return VideoPrismBackbone(card, network, weights_hash=found, device=target.device)


def write_tiny(folder: Path, **changes: Any) -> None:
    """Random weights of a tiny VideoPrism in the published layout; `changes` are of its config."""
    settings: dict[str, Any] = {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "num_spatial_layers": 3,
        "num_temporal_layers": 2,
        "image_size": 108,
        **changes,
    }
    model: Any = VideoPrismVisionModel(VideoPrismVisionConfig(**settings))
    _tiny.randomize(model, torch.Generator().manual_seed(0))
    model.save_pretrained(folder)
