"""Mochi 1: a 10B transformer on the latents of an asymmetric video VAE (Genmo, 2024).

The transformer counts time from noise to data: timestep 0 is pure noise. An empty prompt is, as in
its training, no text token at all, so that no text encoder is needed for it.
"""

from __future__ import annotations

from explorer.backbones import _mochi_published
from explorer.backbones._flow_lists import MochiSchedule
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register

SCHEDULE = MochiSchedule()
FILES = (
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.bf16-*",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "scheduler/*",
    "model_index.json",
)

CARD = BackboneCard(
    id="mochi",
    title="Mochi 1 preview, text to video, 10B",
    kind="video diffusion",
    licence="Apache-2.0",
    layers=48,
    width=3072,
    input_size=(480, 848),
    # the VAE takes all of a clip at once: 163 frames, its longest, would need 80 GB for it
    max_frames=85,
    frame_step=6,
    token_grid=(30, 53),
    default_cell=(32, 0.5),
    uses_sigma=True,
    # of the published configurations
    parameters=10_027_677_744 + 459_748_611,
    vae_parameters=459_748_611,
    # 14 tensors of 23,850 tokens
    working_bytes=2_100_000_000,
    # the VAE encodes the clip in one piece: five times 85 x 480 x 848 x 64 values in float32
    vae_working_bytes=45 * 10**9,
    note="A large generator whose VAE halves space three times and divides time by six.",
    # transformer in bfloat16 20.1 GB, VAE in float32 1.8 GB; the text encoder is not fetched
    source=Source("genmo/mochi-1-preview", FILES, 21_900_000_000),
    taps=("block", "query", "key"),
    fit="stretch",
    takes_prompt=True,
    official="Not probed by the paper.",
)


@register(
    CARD,
    hashes=_mochi_published.hashes,
    schedule=SCHEDULE,
    adapt=_mochi_published.adapt,
    tiny=_mochi_published.write_tiny,
)
def load(card: BackboneCard, target: Target) -> Backbone:
    """The model from a folder in diffusers' layout."""
    return _mochi_published.load(card, target, schedule=SCHEDULE)
