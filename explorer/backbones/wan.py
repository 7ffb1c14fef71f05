"""Wan 2.1, text to video: a causal video VAE and a diffusion transformer (Wan-AI, 2025).

The released feature extraction runs everything in float32 with unseeded noise and encodes the clip
again for every cell; here latents are kept, noise has a seed, the pass stops after the last wanted
block, and the precision is a choice.
"""

from __future__ import annotations

from dataclasses import replace

from explorer.backbones import _wan_published
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register
from explorer.noise import WanSchedule

SCHEDULE = WanSchedule(3.0)
FILES = (
    "transformer/*",
    "vae/*",
    "scheduler/*",
    "text_encoder/*",
    "tokenizer/*",
    "model_index.json",
)
VAE_PARAMETERS = 126_892_531
VAE_WORKING_BYTES = 6_500_000_000
"""Beside weights, 81 frames of 480 x 832: 6.1 GB measured in float32 on an H200, 3.2 GB counted in
half precision (`_wan_vae`; 3.6 GB measured with diffusers' own layers)."""
VAE_PASS_BYTES = 4_500_000_000
"""The same in half precision with two slots a pass, counted."""

CARD = BackboneCard(
    id="wan2.1-1.3b",
    title="Wan2.1 text to video, 1.3B",
    kind="video diffusion",
    licence="Apache-2.0",
    layers=30,
    width=1536,
    input_size=(480, 832),
    max_frames=81,
    frame_step=4,
    token_grid=(30, 52),
    # The released code's layer, and its --t 749: timestep 502.
    default_cell=(20, round(SCHEDULE.at_index(749).sigma, 3)),
    uses_sigma=True,
    parameters=1_418_996_800 + VAE_PARAMETERS,
    vae_parameters=VAE_PARAMETERS,
    # Measured on an H200 at 81 frames: 4.8 GB with all weights.
    working_bytes=1_700_000_000,
    vae_working_bytes=VAE_WORKING_BYTES,
    vae_pass_bytes=VAE_PASS_BYTES,
    note="The smallest of the video generators that the paper probes.",
    source=Source("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", FILES, 28_900_000_000),
    taps=("block", "query", "key"),
    fit="stretch",
    takes_prompt=True,
    official="Float32, unseeded noise, VAE mean encoded again for each cell; layer 20, --t 749.",
)


@register(
    CARD,
    hashes=_wan_published.hashes,
    schedule=SCHEDULE,
    adapt=_wan_published.adapt,
    tiny=_wan_published.write_tiny,
)
def load_small(card: BackboneCard, target: Target) -> Backbone:
    """The 1.3B model from a folder in diffusers' layout."""
    return _wan_published.load(card, target, schedule=SCHEDULE)


@register(
    replace(
        CARD,
        id="wan2.1-14b",
        title="Wan2.1 text to video, 14B",
        layers=40,
        width=5120,
        parameters=14_288_491_584 + VAE_PARAMETERS,
        # Measured too: 32.8 GB with all weights.
        working_bytes=3_900_000_000,
        note="The best of the video generators in the paper.",
        source=Source("Wan-AI/Wan2.1-T2V-14B-Diffusers", FILES, 80_400_000_000),
    ),
    hashes=_wan_published.hashes,
    schedule=SCHEDULE,
    adapt=_wan_published.adapt,
    tiny=_wan_published.write_tiny,
)
def load_large(card: BackboneCard, target: Target) -> Backbone:
    """The 14B model from a folder in diffusers' layout."""
    return _wan_published.load(card, target, schedule=SCHEDULE)
