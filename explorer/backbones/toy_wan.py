"""`toy-wan`: the shipped video diffusion transformer, a small Wan2.1; and its shipped variants."""

from __future__ import annotations

from pathlib import Path

from explorer.backbones import _toy
from explorer.backbones._options import Target
from explorer.backbones.base import Backbone, BackboneCard, Hashes
from explorer.backbones.registry import register
from explorer.toy.config import VARIANTS, Variant

NAME = "toy-wan"
TOKEN_GRID = _toy.TOKEN_GRID
FRAME_STEP = _toy.FRAME_STEP
SCHEDULE = _toy.SCHEDULE
VAE_PARAMETERS = _toy.VAE_PARAMETERS


def model_folder() -> Path:
    """Where vae/, transformer/, scheduler/ and card.json of `toy-wan` are."""
    return _toy.folder(NAME)


def is_trained() -> bool:
    """Whether the shipped weights of `toy-wan` have seen any training."""
    return _toy.is_trained(NAME)


def encoder_hash() -> str:
    """sha256 over the VAE's files.

    Raises:
        BackboneError: a file is missing.
    """
    return _toy.encoder_hash(NAME)


UNTRAINED = "" if is_trained() else " (untrained weights)"


def add(variant: Variant) -> None:
    """Put one transformer into the list of backbones."""

    def hashes(target: Target) -> Hashes:
        return _toy.hashes(variant.name)

    @register(_toy.card(variant), hashes=hashes, schedule=SCHEDULE)
    def load(card: BackboneCard, target: Target) -> Backbone:
        """The weights of the model's folder, float16 there, in the wanted dtype here."""
        from explorer.backbones import _wan, _wan_files, _wan_frames

        kind = _wan_frames.FrameWiseWan if variant.frames_alone else _wan.WanBackbone
        found = _toy.hashes(variant.name)
        return kind(
            card,
            _wan_files.load_vae(_toy.vae_folder(variant.name), device=target.device),
            _wan_files.load_transformer(
                _toy.folder(variant.name) / "transformer",
                device=target.device,
                dtype=target.dtype,
            ),
            weights_hash=found.weights,
            encoder_hash=found.encoder,
            trained=_toy.is_trained(variant.name),
        )


for each in VARIANTS.values():
    if each.name == NAME or _toy.is_shipped(each.name):
        add(each)
