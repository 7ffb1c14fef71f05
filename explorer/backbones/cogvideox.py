"""CogVideoX, text to video and first frame to video (Yang et al., 2024).

Ids that end in "official" are shown a clip as the released feature extraction does it: 97 frames as
two interleaved clips of 49. The others see up to 49 neighbouring frames in one pass. With the
interleaved order and the frames that the released probes use (0, 1, 5, 9, ...) the second clip is
never read and two views of a sample may get the same slot: see `_cogvideox_frames`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from explorer.backbones import _cogvideox_published as _published
from explorer.backbones._cogvideox_frames import Recipe
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register
from explorer.noise import CogVideoXSchedule

SMALL, LARGE = CogVideoXSchedule(3.0), CogVideoXSchedule(1.0)
FILES = (
    "transformer/*",
    "vae/*",
    "scheduler/*",
    "text_encoder/*",
    "tokenizer/*",
    "model_index.json",
)
VAE_PARAMETERS = 215_583_907
# Of the T5-XXL encoder, 4.76e9 parameters stored in two bytes each.
TEXT_BYTES = 9_520_000_000
RELEASED = "fp16, unseeded noise, 97 frames as two interleaved clips of which one is never read"

CARD_2B = BackboneCard(
    id="cogvideox-2b",
    title="CogVideoX text to video, 2B",
    kind="video diffusion",
    licence="Apache-2.0",
    layers=30,
    width=1920,
    input_size=(480, 720),
    max_frames=49,
    frame_step=4,
    token_grid=(30, 45),
    # The released code's layer, and its --t 749.
    default_cell=(20, round(SMALL.at_index(749).sigma, 3)),
    uses_sigma=True,
    parameters=1_693_783_872 + VAE_PARAMETERS,
    vae_parameters=VAE_PARAMETERS,
    # 14 tensors of 17,550 tokens.
    working_bytes=950_000_000,
    # Five tensors of one chunk, 9 x 128 x 480 x 720, in float32, and room.
    vae_working_bytes=10 * 10**9,
    note="A smaller video generator: sines and cosines for positions, other noise than the 5B.",
    source=Source("zai-org/CogVideoX-2b", FILES, 3_387_600_000 + 431_200_000 + TEXT_BYTES),
    taps=("block", "query", "key"),
    fit="stretch",
    takes_prompt=True,
    official=f"{RELEASED}; layer 20, --t 749 (cogvideox-2b-official has its frames).",
)
CARD_5B = replace(
    CARD_2B,
    id="cogvideox-5b",
    title="CogVideoX text to video, 5B",
    licence="CogVideoX licence (other)",
    layers=42,
    width=3072,
    default_cell=(20, round(LARGE.at_index(749).sigma, 3)),
    parameters=5_570_283_072 + VAE_PARAMETERS,
    working_bytes=1_520_000_000,
    note="A video generator with all text and video tokens in one attention, rotary positions.",
    source=Source("zai-org/CogVideoX-5b", FILES, 11_140_600_000 + 431_200_000 + TEXT_BYTES),
    official=f"{RELEASED}; layer 20, --t 749 (cogvideox-5b-official has its frames).",
)
CARD_I2V = replace(
    CARD_5B,
    id="cogvideox-5b-i2v",
    title="CogVideoX first frame to video, 5B",
    # With the learned table of positions, 54.6e6 values.
    parameters=5_625_087_552 + VAE_PARAMETERS,
    note="The 5B that is also given the first frame without noise; the released code's default.",
    source=Source("zai-org/CogVideoX-5b-I2V", FILES, 11_250_200_000 + 862_300_000 + TEXT_BYTES),
    official=f"{RELEASED}; first frame's posterior sampled; layer 20, --t 749 "
    "(cogvideox-5b-i2v-official has its frames).",
    first_frame=True,
)
SAME_FRAMES = "Same frames and slots; fp16 and unseeded noise there; layer 20, --t 749."
TWO_CLIPS = "Shown two interleaved clips of 49 as released; frames 8k+1 to 8k+7 share two slots."


def _offer(card: BackboneCard, schedule: CogVideoXSchedule, recipe: Recipe, **tiny: Any) -> None:
    """Register a model as it is and with the released order of frames."""
    for order in (recipe, replace(recipe, interleaved=True)):
        fitting = card
        if order.interleaved:
            fitting = replace(
                card,
                id=f"{card.id}-official",
                title=f"{card.title}, released frame order",
                max_frames=97,
                frame_step=8,
                working_bytes=2 * card.working_bytes,  # two clips at once
                note=TWO_CLIPS,
                official=SAME_FRAMES,
            )

        def load(card: BackboneCard, target: Target, order: Recipe = order) -> Backbone:
            return _published.load(card, target, schedule=schedule, recipe=order)

        register(
            fitting,
            hashes=partial(_published.hashes, recipe=order),
            schedule=schedule,
            adapt=partial(_published.adapt, recipe=order, rotary=schedule is not SMALL),
            tiny=partial(_published.write_tiny, **tiny),
        )(load)


_offer(CARD_2B, SMALL, Recipe())
_offer(CARD_5B, LARGE, Recipe(), use_rotary_positional_embeddings=True)
_offer(
    CARD_I2V,
    LARGE,
    Recipe(first_frame=True),
    in_channels=8,
    use_rotary_positional_embeddings=True,
    use_learned_positional_embeddings=True,
)
