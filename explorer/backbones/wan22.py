"""Wan 2.2: a small model over a VAE of half the resolution, and two experts by noise (2025).

TI2V-5B has a VAE that shrinks 16 times in height and width, and takes a timestep for each token:
the same for all from text alone, 0 for those of a first frame that is given without noise.
A14B is two transformers of Wan 2.1's shape: one for timesteps from 875 up, one for those below.
The paper probes neither; the cells named here are those of Wan 2.1.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from explorer.backbones import _wan_published
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard, Hashes, hash_arrays
from explorer.backbones.registry import register
from explorer.backbones.wan import FILES, VAE_PARAMETERS, VAE_PASS_BYTES, VAE_WORKING_BYTES
from explorer.noise import WanSchedule

SMALL_SCHEDULE = WanSchedule(5.0)
EXPERTS_SCHEDULE = WanSchedule(3.0)
BOUNDARY = 875.0
"""First timestep of the expert for much noise: boundary_ratio 0.875 of 1,000."""
EXPERTS = ("transformer", _wan_published.SECOND)
"""Folders of the experts for much and for little noise."""

CARD = BackboneCard(
    id="wan2.2-ti2v-5b",
    title="Wan2.2 text to video, 5B",
    kind="video diffusion",
    licence="Apache-2.0",
    layers=30,
    width=3072,
    input_size=(704, 1280),
    max_frames=121,
    frame_step=4,
    token_grid=(22, 40),
    # Index 749 of the released extraction, under this model's flow shift of 5.
    default_cell=(20, 0.627),
    uses_sigma=True,
    parameters=4_999_787_712 + 704_688_668,
    vae_parameters=704_688_668,
    # 15 tensors of 27,280 tokens, and six vectors for each token in float32, twice, in every block.
    working_bytes=6_500_000_000,
    # A dozen tensors of one chunk of four frames, 160 x 352 x 640, in float32.
    vae_working_bytes=8 * 10**9,
    note="A strong compression: one token for 32 x 32 pixels and four frames, at 704 x 1280.",
    # Transformer and VAE in float32, text encoder in bfloat16; from the counts of parameters.
    source=Source("Wan-AI/Wan2.2-TI2V-5B-Diffusers", FILES, 34_200_000_000),
    taps=("block", "query", "key"),
    fit="stretch",
    takes_prompt=True,
    official="Not in the released extraction. Text to video: no frame is given without noise "
    "(wan2.2-ti2v-5b-i2v has the first).",
)


def _small_tiny(folder: Path) -> None:
    from explorer.backbones import _wan22

    _wan22.write_small_tiny(folder)


@register(
    CARD,
    hashes=_wan_published.hashes,
    schedule=SMALL_SCHEDULE,
    adapt=_wan_published.adapt,
    tiny=_small_tiny,
)
def load_small(card: BackboneCard, target: Target) -> Backbone:
    """The 5B model from a folder in diffusers' layout."""
    from explorer.backbones import _wan22

    return _wan_published.load(
        card, target, schedule=SMALL_SCHEDULE, make=_wan22.TokenTimesBackbone
    )


def _image_hashes(target: Target) -> Hashes:
    found = _wan_published.hashes(target)
    return replace(found, weights=hash_arrays([], f"first frame without noise, {found.weights}"))


@register(
    replace(
        CARD,
        id="wan2.2-ti2v-5b-i2v",
        title="Wan2.2 first frame to video, 5B",
        note="The 5B that is also given the first frame: without noise, its tokens at timestep 0.",
        official="Not in the released extraction.",
        first_frame=True,
    ),
    hashes=_image_hashes,
    schedule=SMALL_SCHEDULE,
    adapt=_wan_published.adapt,
    tiny=_small_tiny,
)
def load_image(card: BackboneCard, target: Target) -> Backbone:
    """The same 5B model in its image-to-video mode."""
    from explorer.backbones import _wan22

    return _wan_published.load(
        card,
        target,
        schedule=SMALL_SCHEDULE,
        make=_wan22.FirstFrameBackbone,
        found=_image_hashes(target),
    )


def _expert_hashes(target: Target) -> Hashes:
    return _wan_published.hashes(target, EXPERTS)


def _experts_tiny(folder: Path) -> None:
    _wan_published.write_tiny(folder, transformers=EXPERTS)


@register(
    replace(
        CARD,
        id="wan2.2-a14b",
        title="Wan2.2 text to video, A14B: two experts by noise",
        layers=40,
        width=5120,
        input_size=(480, 832),
        max_frames=81,
        token_grid=(30, 52),
        default_cell=(20, round(EXPERTS_SCHEDULE.at_index(749).sigma, 3)),
        # Of the expert in memory; the other has as many.
        parameters=14_288_491_584 + VAE_PARAMETERS,
        vae_parameters=VAE_PARAMETERS,
        # As Wan 2.1's of the same sizes.
        working_bytes=3_900_000_000,
        vae_working_bytes=VAE_WORKING_BYTES,
        vae_pass_bytes=VAE_PASS_BYTES,
        note=(
            "One expert of 14.3 billion weights from sigma 0.875 up, one below; the one that a "
            "noise level needs is in memory, the other on disk."
        ),
        # As above; both experts in float32.
        source=Source(
            "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
            (*FILES, "transformer_2/*"),
            126_100_000_000,
        ),
        official="Not in the released extraction.",
    ),
    hashes=_expert_hashes,
    schedule=EXPERTS_SCHEDULE,
    adapt=partial(_wan_published.adapt, experts=True),
    tiny=_experts_tiny,
)
def load_experts(card: BackboneCard, target: Target) -> Backbone:
    """VAE and prompt; an expert is read when a noise level asks for it."""
    from explorer.backbones import _wan22

    return _wan22.load_experts(
        card,
        target,
        schedule=EXPERTS_SCHEDULE,
        hashes=_expert_hashes(target),
        experts=EXPERTS,
        boundary=BOUNDARY,
    )
