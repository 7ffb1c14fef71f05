"""Stable Video Diffusion's published folder: card, hashes, loading, and a tiny folder like it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones._options import Target
from explorer.backbones._parts import Family
from explorer.backbones.base import BackboneCard
from explorer.errors import BackboneError

if TYPE_CHECKING:
    from explorer.backbones._svd import SVDBackbone
    from explorer.noise import Schedule

FAMILY = Family(
    what="stabilityai/stable-video-diffusion-img2vid-xt (unet/, vae/)",
    network="UNetSpatioTemporalConditionModel",
    vae="AutoencoderKLTemporalDecoder",
    parts=("unet",),
)
LEVEL = 1
"""Which size of the U-Net is read: 0 is that of the latents, each next one half of it."""


def adapt(card: BackboneCard, folder: Path) -> BackboneCard:
    """The card of the weights in a folder.

    Raises:
        BackboneError: a part is missing or broken, or the U-Net has other kinds of blocks.
    """
    config, vae = FAMILY.config(folder, "unet"), FAMILY.config(folder, "vae")
    levels = len(config["block_out_channels"])
    kinds = [config["down_block_types"][LEVEL], config["up_block_types"][levels - 1 - LEVEL]]
    if not all(kind.startswith("CrossAttn") for kind in kinds):
        raise BackboneError(f"{folder}: this U-Net has no attention where it is to be read")
    patch = 2 ** (len(vae["block_out_channels"]) - 1) * 2**LEVEL
    return FAMILY.adapt(
        card,
        folder,
        layers=2 * config["layers_per_block"] + 1,
        width=config["block_out_channels"][LEVEL],
        patch=patch,
        frame_step=1,
    )


def load(card: BackboneCard, target: Target, *, schedule: Schedule) -> SVDBackbone:
    """U-Net and VAE; the VAE encodes one frame at a time, so that tiles would save nothing.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    from explorer.backbones import _svd

    return _svd.SVDBackbone(
        card,
        FAMILY.load_vae(replace(target, vae_tiling=False)),
        FAMILY.load_network(target, "unet"),
        target,
        hashes=FAMILY.hashes(target),
        schedule=schedule,
    )


def write_tiny(folder: Path) -> None:
    """Random weights of a tiny Stable Video Diffusion in the published layout."""
    import diffusers
    import torch

    from explorer.backbones import _tiny

    settings: dict[str, dict[str, Any]] = {
        "unet": {
            "block_out_channels": (32, 32, 64, 64),
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 24,
            "cross_attention_dim": 16,
            "num_attention_heads": (2, 2, 4, 4),
            "layers_per_block": 1,
        },
        "vae": {
            "block_out_channels": (32, 32, 32, 32),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "layers_per_block": 1,
        },
    }
    models = {
        "unet": getattr(diffusers, FAMILY.network)(**settings["unet"]),
        "vae": getattr(diffusers, FAMILY.vae)(**settings["vae"]),
    }
    _tiny.write_parts(folder, models, torch.Generator().manual_seed(0))
