"""Mochi's published folder: card, hashes, loading, and a tiny folder of the same layout."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones import _t5_video
from explorer.backbones._options import Target
from explorer.backbones._parts import Family
from explorer.backbones.base import BackboneCard, Hashes

if TYPE_CHECKING:
    import torch

    from explorer.backbones._mochi import MochiBackbone
    from explorer.noise import Schedule

TEXT = _t5_video.T5("mochi-t5-xxl-256", "genmo/mochi-1-preview", tokens=256, masks_padding=True)
# Its empty prompt is no text at all: nothing of a text encoder counts then.
WORDLESS = Family(
    what="genmo/mochi-1-preview (transformer/, vae/)",
    network="MochiTransformer3DModel",
    vae="AutoencoderKLMochi",
)
FAMILY = replace(WORDLESS, text=TEXT)


def hashes(target: Target) -> Hashes:
    """Fingerprints of transformer, VAE and text encoder, as far as the prompt needs one."""
    return (FAMILY if target.prompt else WORDLESS).hashes(target)


def adapt(card: BackboneCard, folder: Path) -> BackboneCard:
    """The card of the weights in a folder.

    Raises:
        BackboneError: a part is missing or broken.
    """
    vae = FAMILY.config(folder, "vae")
    compression = math.prod(vae["temporal_expansions"]), math.prod(vae["spatial_expansions"])
    return _t5_video.adapt(FAMILY, card, folder, compression=compression)


def load(card: BackboneCard, target: Target, *, schedule: Schedule) -> MochiBackbone:
    """VAE, transformer and the prompt's embedding.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    from explorer.backbones import _mochi

    config = FAMILY.config(target.folder, "transformer")
    prompt = embedding(target, config["text_embed_dim"])
    return _mochi.MochiBackbone(
        card,
        FAMILY.load_vae(target),
        FAMILY.load_network(target),
        target,
        hashes=hashes(target),
        schedule=schedule,
        prompt=prompt,
    )


def embedding(target: Target, width: int) -> dict[str, torch.Tensor]:
    """The prompt's embedding; for an empty one zeros that are all masked.

    Masked tokens reach no video token: attention leaves them out, and the pooled text is zero.
    """
    import torch

    if target.prompt:
        return _t5_video.prompt(TEXT, target.folder, target.prompt)
    return {"prompt": torch.zeros(1, TEXT.tokens, width), "mask": torch.zeros(1, TEXT.tokens)}


def write_tiny(folder: Path) -> None:
    """Random weights of a tiny Mochi in the published layout."""
    vae: dict[str, Any] = {
        "encoder_block_out_channels": (32, 32, 32, 32),  # groups of 32 in its norms
        "decoder_block_out_channels": (32, 32, 32, 32),
        "layers_per_block": (0, 1, 1, 1, 1),  # none at full resolution, to be quick
        "latent_channels": 4,
        "latents_mean": (0.1, -0.2, 0.0, 0.3),
        "latents_std": (1.0, 0.8, 1.2, 0.9),
    }
    transformer = {
        "in_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "pooled_projection_dim": 16,
        "text_embed_dim": 16,
        "time_embed_dim": 8,
        "num_layers": 3,
    }
    _t5_video.write_tiny(
        FAMILY, TEXT, folder, vae=vae, transformer=transformer, text_width=16, valid=[0, 1]
    )
