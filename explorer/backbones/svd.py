"""Stable Video Diffusion: an image model's U-Net with attention over time (Blattmann et al. 2023).

A U-Net has blocks of several sizes, and a card has one token grid: the layers here are the
attention modules at a sixteenth of the picture, two on the way down and three on the way up. The
model animates a first frame; it is asked as its sampler asks for the unconditional part, without
that frame, so that every frame has the same noise.
"""

from __future__ import annotations

from explorer.backbones import _svd_published
from explorer.backbones._options import Source, Target
from explorer.backbones._svd_schedule import SVDSchedule
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register

SCHEDULE = SVDSchedule()
FILES = (
    "unet/config.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "scheduler/*",
    "model_index.json",
)

CARD = BackboneCard(
    id="svd",
    title="Stable Video Diffusion XT",
    kind="video diffusion",
    licence="Stability AI Community License",
    layers=5,
    width=640,
    input_size=(576, 1024),
    max_frames=25,
    frame_step=1,
    token_grid=(36, 64),
    default_cell=(3, 0.5),
    uses_sigma=True,
    # of the published configurations; the image encoder is not needed
    parameters=1_524_623_082 + 97_742_847,
    vae_parameters=97_742_847,
    # 25 x 72 x 128 positions of 320 channels, their skips, feed-forward layers eight times as wide
    working_bytes=6_500_000_000,
    # one frame at a time: six times 576 x 1024 x 128 values in float32
    vae_working_bytes=1_800_000_000,
    note="A U-Net of images and time, without latent time: every frame has its own latents.",
    # U-Net in float16 3.05 GB, VAE in float32 0.39 GB
    source=Source(
        "stabilityai/stable-video-diffusion-img2vid-xt", FILES, 3_440_000_000, gated=True
    ),
    taps=("block", "query", "key"),
    fit="stretch",
    official="Not probed by the paper.",
)


@register(
    CARD,
    hashes=_svd_published.FAMILY.hashes,
    schedule=SCHEDULE,
    adapt=_svd_published.adapt,
    tiny=_svd_published.write_tiny,
)
def load(card: BackboneCard, target: Target) -> Backbone:
    """U-Net and VAE from a folder in diffusers' layout."""
    return _svd_published.load(card, target, schedule=SCHEDULE)
