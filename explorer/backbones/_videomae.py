"""transformers' VideoMAE encoder on a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEModel

from explorer._typing import Float, Int
from explorer.backbones import _tiny
from explorer.backbones._encoder import TubeletBackbone, load_network
from explorer.backbones._encoder_published import Family
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard

RENAMED = {
    "attention.attention.q_bias": "attention.attention.query.bias",
    "attention.attention.v_bias": "attention.attention.value.bias",
}
"""Names in the published files, and those that transformers gives the modules since."""
DECODER = ("decoder.", "encoder_to_decoder.", "mask_token")


class VideoMaeNetwork(nn.Module):
    """The parts of a VideoMAEModel, which takes fewer frames and smaller pictures as well."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        embeddings = model.embeddings
        self.projection = embeddings.patch_embeddings.projection
        self.layer = model.encoder.layer
        self.layernorm = model.layernorm
        patches = embeddings.patch_embeddings
        self.side: int = patches.image_size[0] // patches.projection.kernel_size[1]
        self.table: torch.Tensor
        self.register_buffer("table", embeddings.position_embeddings[0], persistent=False)

    def forward(
        self, frames: Float[torch.Tensor, "B T 3 H W"], places: Int[torch.Tensor, " N"] | None
    ) -> Float[torch.Tensor, "B N D"]:
        """(B, N, D) tokens after the final norm, in the order time, row, column."""
        tokens: torch.Tensor = self.projection(frames.transpose(1, 2)).flatten(2).transpose(1, 2)
        table = self.table[: tokens.shape[1]] if places is None else self.table[places]
        tokens = tokens + table.type_as(tokens)
        for block in self.layer:
            tokens = block(tokens)
        normed: torch.Tensor = self.layernorm(tokens)
        return normed


class VideoMaeBackbone(TubeletBackbone):
    """The video encoder behind the one `extract`."""

    @property
    def blocks(self) -> Sequence[Any]:
        return [*self.transformer.layer, self.transformer.layernorm]

    def run(self, frames: Float[torch.Tensor, "n 3 H W"]) -> object:
        return self.transformer(frames[None], self.places(len(frames), self.transformer.side))

    def tapped(self, block: Any, tap: str) -> nn.Module:
        attention = block.attention.attention
        module: nn.Module = {"query": attention.query, "key": attention.key}[tap]
        return module


def rename(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """A tensor of a published file under the names of `VideoMaeNetwork`; no decoder."""
    if name.startswith(DECODER):
        return
    name = name.removeprefix("videomae.").removeprefix("encoder.")
    name = name.removeprefix("embeddings.patch_embeddings.")
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    yield name, tensor


def make(config: Any) -> VideoMaeNetwork:
    """The encoder with its final norm, which classifiers made of it lack."""
    config.use_mean_pooling = False
    return VideoMaeNetwork(VideoMAEModel(config))


def load(card: BackboneCard, target: Target, family: Family) -> VideoMaeBackbone:
    """The encoder in a folder.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    network = load_network(
        family,
        target,
        config_class=VideoMAEConfig,
        make=make,
        rename=rename,
    )
    found = family.hashes(target).weights
    return VideoMaeBackbone(card, network, weights_hash=found, device=target.device)


def write_tiny(folder: Path, **changes: Any) -> None:
    """Random weights of a tiny VideoMAE in the published layout; `changes` go into config.json."""
    settings: dict[str, Any] = {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "image_size": 128,
        "use_mean_pooling": False,
        "decoder_hidden_size": 24,
        "decoder_intermediate_size": 24,
        "decoder_num_attention_heads": 2,
        "decoder_num_hidden_layers": 1,
        **changes,
    }
    model: Any = VideoMAEForPreTraining(VideoMAEConfig(**settings))
    _tiny.randomize(model, torch.Generator().manual_seed(0))
    model.save_pretrained(folder)
