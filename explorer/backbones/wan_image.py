"""Wan 2.1, image to video: the same VAE and transformer, shown the first frame (Wan-AI, 2025).

The transformer gets the noisy latents, a mask that marks the known frame, and the latents of a
video that is grey after that frame; an image encoder (CLIP ViT-H/14) describes the frame too.
"""

from __future__ import annotations

from pathlib import Path

from explorer.backbones import _wan_published
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard, Hashes
from explorer.backbones.registry import register
from explorer.backbones.wan import (
    FILES,
    SCHEDULE,
    VAE_PARAMETERS,
    VAE_PASS_BYTES,
    VAE_WORKING_BYTES,
)

PARTS = ("transformer", "image_encoder")
TRANSFORMER_PARAMETERS = 16_394_878_784
IMAGE_ENCODER_PARAMETERS = 630_766_080


def hashes(target: Target) -> Hashes:
    """Fingerprints of transformer, image encoder and VAE."""
    return _wan_published.hashes(target, PARTS)


def _tiny(folder: Path) -> None:
    from explorer.backbones import _wan_image

    _wan_image.write_tiny(folder)


@register(
    BackboneCard(
        id="wan2.1-i2v-14b",
        title="Wan2.1 image to video, 14B",
        kind="video diffusion",
        licence="Apache-2.0",
        layers=40,
        width=5120,
        input_size=(480, 832),
        max_frames=81,
        frame_step=4,
        token_grid=(30, 52),
        default_cell=(20, round(SCHEDULE.at_index(749).sigma, 3)),
        uses_sigma=True,
        parameters=TRANSFORMER_PARAMETERS + IMAGE_ENCODER_PARAMETERS + VAE_PARAMETERS,
        vae_parameters=VAE_PARAMETERS,
        # As Wan 2.1 14B's, for the same tokens and frames.
        working_bytes=3_900_000_000,
        vae_working_bytes=VAE_WORKING_BYTES,
        vae_pass_bytes=VAE_PASS_BYTES,
        note="Sees the first frame without noise: shows what an image adds to a video's noise.",
        # Stored in float32 but for the image encoder; from the counts of parameters.
        source=Source(
            "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
            (*FILES, "image_encoder/*"),
            90_100_000_000,
        ),
        taps=("block", "query", "key"),
        fit="stretch",
        takes_prompt=True,
        official=(
            "No configuration of the paper uses it. Its helper conditions on the last frame by "
            "mistake (`video[-1]`); here it is the first. Layer 20, --t 749, unseeded noise."
        ),
        first_frame=True,
    ),
    hashes=hashes,
    schedule=SCHEDULE,
    adapt=lambda card, folder: _wan_published.adapt(card, folder, PARTS),
    tiny=_tiny,
)
def load(card: BackboneCard, target: Target) -> Backbone:
    """VAE, transformer, image encoder and prompt from a folder in diffusers' layout."""
    from explorer.backbones import _wan_image

    found = hashes(target)
    text = _wan_published.prompt(target.folder, target.prompt)
    return _wan_image.WanImageBackbone(
        card,
        _wan_published.load_vae(target),
        _wan_published.load_transformer(target),
        _wan_image.load_image_encoder(target),
        weights_hash=found.weights,
        encoder_hash=found.encoder,
        trained=True,
        schedule=SCHEDULE,
        prompt=text.to(target.device),
    )
