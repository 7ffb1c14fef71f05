"""Stable Video Diffusion's published folder: card, hashes, loading, and a tiny folder like it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones import _parts, _published
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard, Hashes
from explorer.errors import BackboneError

if TYPE_CHECKING:
    from explorer.backbones._svd import SVDBackbone
    from explorer.noise import Schedule

WHAT = "stabilityai/stable-video-diffusion-img2vid-xt (unet/, vae/)"
LEVEL = 1
"""Which size of the U-Net is read: 0 is that of the latents, each next one half of it."""
CLASSES = {"unet": "UNetSpatioTemporalConditionModel", "vae": "AutoencoderKLTemporalDecoder"}


def hashes(target: Target) -> Hashes:
    """Fingerprints of U-Net and VAE."""
    return _published.component_hashes(target, what=WHAT, network=("unet",), encoder="vae")


def adapt(card: BackboneCard, folder: Path) -> BackboneCard:
    """The card of the weights in a folder.

    Raises:
        BackboneError: a part is missing or broken, or the U-Net has other kinds of blocks.
    """
    config = _published.config_of(folder, "unet", what=WHAT)
    vae = _published.config_of(folder, "vae", what=WHAT)
    levels = len(config["block_out_channels"])
    kinds = [config["down_block_types"][LEVEL], config["up_block_types"][levels - 1 - LEVEL]]
    if not all(kind.startswith("CrossAttn") for kind in kinds):
        raise BackboneError(f"{folder}: this U-Net has no attention where it is to be read")
    patch = 2 ** (len(vae["block_out_channels"]) - 1) * 2**LEVEL
    rows, columns = (size // patch for size in card.input_size)
    layers = 2 * config["layers_per_block"] + 1
    width = config["block_out_channels"][LEVEL]
    weights = [path for part in CLASSES for path in _parts.files(folder, part, what=WHAT)[1:]]
    return replace(
        card,
        layers=layers,
        width=width,
        token_grid=(rows, columns),
        working_bytes=card.working_bytes * width // card.width,
        parameters=_published.count_parameters(weights),
        default_cell=(min(card.default_cell[0], layers - 1), card.default_cell[1]),
    )


def load(card: BackboneCard, target: Target, *, schedule: Schedule) -> SVDBackbone:
    """U-Net and VAE; the VAE encodes one frame at a time, so that tiles would save nothing.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    from explorer.backbones import _svd

    vae = _parts.load_part(target, "vae", CLASSES["vae"], what=WHAT, dtype=target.vae_dtype)
    unet = _parts.load_part(
        target,
        "unet",
        CLASSES["unet"],
        what=WHAT,
        dtype=target.dtype,
        offload=target.offload,
    )
    return _svd.SVDBackbone(card, vae, unet, target, hashes=hashes(target), schedule=schedule)


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
    generator = torch.Generator().manual_seed(0)
    for part, class_name in CLASSES.items():
        model = getattr(diffusers, class_name)(**settings[part])
        _tiny.randomize(model, generator)
        model.save_pretrained(folder / part)
