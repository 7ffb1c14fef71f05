"""LTX-Video: a transformer on strongly compressed latents (HaCohen et al. 2024, arXiv 2501.00103).

One token is 32 x 32 pixels of 8 frames. Its sampler shifts noise levels with the number of tokens;
a noise level itself means the same at any number of them.
"""

from __future__ import annotations

from explorer.backbones import _ltx_published
from explorer.backbones._flow_lists import LTXSchedule
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register

FILES = (
    "transformer/*",
    "vae/*",
    "scheduler/*",
    "text_encoder/*",
    "tokenizer/*",
    "model_index.json",
)
TOKENS = 16 * 15 * 22  # of 121 frames: other lengths have another list, but the same noise levels

SCHEDULE = LTXSchedule(TOKENS)

CARD = BackboneCard(
    id="ltx-video",
    title="LTX-Video 0.9, text to video, 2B",
    kind="video diffusion",
    licence="LTX-Video 2B v0.9 license (open weights, conditions of use)",
    layers=28,
    width=2048,
    input_size=(480, 704),
    max_frames=121,
    frame_step=8,
    token_grid=(15, 22),
    default_cell=(18, 0.5),
    uses_sigma=True,
    # of the published configurations
    parameters=1_923_385_472 + 419_193_649,
    vae_parameters=419_193_649,
    # 14 tensors of 5,280 tokens
    working_bytes=310_000_000,
    # the VAE encodes the clip in one piece: six times 121 x 120 x 176 x 128 values in float32
    vae_working_bytes=9 * 10**9,
    note="Few, large tokens: 32 x 32 pixels of 8 frames each.",
    # float32: transformer 7.7 GB, text encoder 19 GB, VAE 1.7 GB
    source=Source("Lightricks/LTX-Video", FILES, 28_400_000_000),
    taps=("block", "query", "key"),
    fit="stretch",
    takes_prompt=True,
    official="Not probed by the paper.",
)


@register(
    CARD,
    hashes=_ltx_published.FAMILY.hashes,
    schedule=SCHEDULE,
    adapt=_ltx_published.adapt,
    tiny=_ltx_published.write_tiny,
)
def load(card: BackboneCard, target: Target) -> Backbone:
    """The model from a folder in diffusers' layout."""
    return _ltx_published.load(card, target, schedule=SCHEDULE)
