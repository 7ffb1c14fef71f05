"""LTX-Video's published folder: card, hashes, loading, and a tiny folder of the same layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones import _t5_video
from explorer.backbones._options import Target
from explorer.backbones._parts import Family
from explorer.backbones.base import BackboneCard

if TYPE_CHECKING:
    from explorer.backbones._ltx import LTXBackbone
    from explorer.noise import Schedule

TEXT = _t5_video.T5("ltx-t5-xxl-128", "Lightricks/LTX-Video", tokens=128)
FAMILY = Family(
    what="Lightricks/LTX-Video (transformer/, vae/)",
    network="LTXVideoTransformer3DModel",
    vae="AutoencoderKLLTXVideo",
    text=TEXT,
    buffers=_t5_video.BUFFERS,
)


def adapt(card: BackboneCard, folder: Path) -> BackboneCard:
    """The card of the weights in a folder.

    Raises:
        BackboneError: a part is missing or broken.
    """
    vae = FAMILY.config(folder, "vae")
    halvings = 2 ** sum(vae["spatio_temporal_scaling"])
    compression = (
        vae.get("temporal_compression_ratio") or vae["patch_size_t"] * halvings,
        vae.get("spatial_compression_ratio") or vae["patch_size"] * halvings,
    )
    return _t5_video.adapt(FAMILY, card, folder, compression=compression)


def load(card: BackboneCard, target: Target, *, schedule: Schedule) -> LTXBackbone:
    """VAE, transformer and the prompt's embedding.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    from explorer.backbones import _ltx

    prompt = _t5_video.prompt(TEXT, target.folder, target.prompt)
    return _ltx.LTXBackbone(
        card,
        FAMILY.load_vae(target),
        FAMILY.load_network(target),
        target,
        hashes=FAMILY.hashes(target),
        schedule=schedule,
        prompt=prompt,
    )


def write_tiny(folder: Path) -> None:
    """Random weights of a tiny LTX-Video in the published layout."""
    vae: dict[str, Any] = {
        "latent_channels": 8,
        "block_out_channels": (4, 8, 8, 8),
        "decoder_block_out_channels": (4, 8, 8, 8),
        "layers_per_block": (1, 1, 1, 1, 1),
        "decoder_layers_per_block": (1, 1, 1, 1, 1),
        "scaling_factor": 0.5,
    }
    transformer = {
        "in_channels": 8,
        "out_channels": 8,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "cross_attention_dim": 24,
        "caption_channels": 16,
        "num_layers": 3,
    }
    _t5_video.write_tiny(
        FAMILY, TEXT, folder, vae=vae, transformer=transformer, text_width=16, valid=[0, 1]
    )
