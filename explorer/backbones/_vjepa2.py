"""transformers' V-JEPA 2 encoder on a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import VJEPA2Config, VJEPA2Model

from explorer._typing import Float, Int
from explorer.backbones import _tiny
from explorer.backbones._encoder import TubeletBackbone, load_network
from explorer.backbones._encoder_published import Family
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard


class Vjepa2Network(nn.Module):
    """The encoder of a VJEPA2Model, told where its tokens are."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        encoder = model.encoder
        self.embeddings = encoder.embeddings
        self.layer = encoder.layer
        self.layernorm = encoder.layernorm
        self.side: int = encoder.config.crop_size // encoder.config.patch_size

    def forward(
        self, frames: Float[torch.Tensor, "B T 3 H W"], places: Int[torch.Tensor, "B N"] | None
    ) -> Float[torch.Tensor, "B N D"]:
        """(B, N, D) tokens after the final norm, in the order time, row, column."""
        tokens = self.embeddings(frames)
        for block in self.layer:
            tokens = block(tokens, places)[0]
        normed: torch.Tensor = self.layernorm(tokens)
        return normed


class Vjepa2Backbone(TubeletBackbone):
    """The video encoder behind the one `extract`."""

    @property
    def blocks(self) -> Sequence[Any]:
        return [*self.transformer.layer, self.transformer.layernorm]

    def run(self, frames: Float[torch.Tensor, "n 3 H W"]) -> object:
        places = self.places(len(frames), self.transformer.side)
        return self.transformer(frames[None], None if places is None else places[None])

    def tapped(self, block: Any, tap: str) -> nn.Module:
        attention = block.attention
        module: nn.Module = {"query": attention.query, "key": attention.key}[tap]
        return module


def rename(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """A tensor of a published file under the names of `Vjepa2Network`; no predictor."""
    if not name.startswith("predictor."):
        yield name.removeprefix("encoder."), tensor


def load(card: BackboneCard, target: Target, family: Family) -> Vjepa2Backbone:
    """The encoder in a folder.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    network = load_network(
        family,
        target,
        config_class=VJEPA2Config,
        make=lambda config: Vjepa2Network(VJEPA2Model(config)),
        rename=rename,
    )
    found = family.hashes(target).weights
    return Vjepa2Backbone(card, network, weights_hash=found, device=target.device)


def write_tiny(folder: Path, **changes: Any) -> None:
    """Random weights of a tiny V-JEPA 2 in the published layout; `changes` go into config.json."""
    settings: dict[str, Any] = {
        "hidden_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "crop_size": 128,
        "pred_hidden_size": 24,
        "pred_num_attention_heads": 2,
        "pred_num_hidden_layers": 1,
        "pred_num_mask_tokens": 2,
        **changes,
    }
    model = VJEPA2Model(VJEPA2Config(**settings))
    _tiny.randomize(model, torch.Generator().manual_seed(0))
    model.save_pretrained(folder)
