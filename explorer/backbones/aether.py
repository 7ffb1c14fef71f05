"""Aether, a world model of video, depth and camera made from CogVideoX (Zhu et al., 2025).

`aether` has nothing in its geometry channels but noise (`geometry_input="none"`); in
`aether-geometry` and `aether-official` they hold what the model reconstructed from the same clip
beforehand (`geometry_input="official"`). The last is also shown two interleaved clips, as released.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from explorer.backbones import _aether_published as _published
from explorer.backbones._cogvideox_frames import Recipe
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.cogvideox import CARD_I2V, LARGE, VAE_PARAMETERS
from explorer.backbones.registry import register

# The released extraction says 8 frames a second; the model's rotary time axis counts at 12.
RECIPE = Recipe(first_frame=True, pace=12 / 8)
SHARED = Source(
    "zai-org/CogVideoX-5b-I2V",
    ("vae/*", "scheduler/*", "text_encoder/*", "tokenizer/*", "model_index.json"),
    10_382_300_000,
)
# Sizes as of CogVideoX-5b-I2V with 96 channels in and 56 out, stored in two bytes each.
PARAMETERS = 5_626_365_664
SOURCE = Source(
    "AetherWorldModel/AetherV1",
    ("transformer/*",),
    2 * PARAMETERS + SHARED.download_bytes,
    shared=SHARED,
)
RELEASED = (
    "bf16, unseeded noise; geometry reconstructed by the model itself in its inputs; 81 frames as "
    "two interleaved clips of which one is never read; layer 20, --t 749"
)

CARD = replace(
    CARD_I2V,
    id="aether",
    title="Aether V1, noise for geometry",
    licence="MIT; VAE: CogVideoX licence (other)",
    max_frames=41,
    parameters=PARAMETERS + VAE_PARAMETERS,
    note="CogVideoX fine-tuned on synthetic geometry, clips of 17, 25, 33 or 41 frames; is given "
    "the first frame, no geometry.",
    source=SOURCE,
    official=f"{RELEASED} (aether-official).",
)


def _offer(card: BackboneCard, recipe: Recipe) -> None:
    def load(card: BackboneCard, target: Target) -> Backbone:
        return _published.load(card, target, schedule=LARGE, recipe=recipe, source=SOURCE)

    register(
        card,
        hashes=partial(_published.hashes, recipe=recipe, source=SOURCE),
        schedule=LARGE,
        adapt=partial(_published.adapt, recipe=recipe, source=SOURCE),
        tiny=_published.write_tiny,
    )(load)


_offer(CARD, RECIPE)
_offer(
    replace(
        CARD,
        id="aether-geometry",
        title="Aether V1, its own reconstruction as input",
        note="Sees the disparity and rays that it reconstructed: not comparable with the others.",
    ),
    replace(RECIPE, geometry=True),
)
_offer(
    replace(
        CARD,
        id="aether-official",
        title="Aether V1, as released",
        max_frames=81,
        frame_step=8,
        working_bytes=2 * CARD.working_bytes,
        note="Sees its own reconstruction; two interleaved clips of 41 frames.",
        official="Same inputs, frames and slots; bf16, unseeded noise there; layer 20, --t 749.",
    ),
    replace(RECIPE, geometry=True, interleaved=True),
)
