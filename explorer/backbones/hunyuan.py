"""HunyuanVideo, text to video: a causal video VAE and a multimodal transformer (Tencent, 2024).

Blocks are counted through both kinds: 0 to 19 are double-stream, 20 to 59 single-stream. The model
is distilled from guidance and is told a strength of it; here that is the 6 of its pipeline.

There is no released feature extraction for it. It was made for 720 x 1280; frames are taken at
480 x 832 and up to 81 of them, like Wan's, so that maps of both have one grid.
"""

from __future__ import annotations

from explorer.backbones import _hunyuan_published
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register
from explorer.noise import FlowSchedule

FILES = (
    "transformer/*",
    "vae/*",
    "scheduler/*",
    "text_encoder/*",
    "tokenizer/*",
    "text_encoder_2/*",
    "tokenizer_2/*",
    "model_index.json",
)
SCHEDULE = FlowSchedule(7.0)
# Transformer in bfloat16 (25.6 GB), VAE (1.0), Llama 8B (15) and CLIP (0.2) in float16: an estimate
# from parameters, not a sum of file sizes.
DOWNLOAD_BYTES = 42_000_000_000

CARD = BackboneCard(
    id="hunyuanvideo",
    title="HunyuanVideo text to video, 13B",
    kind="video diffusion",
    licence="Tencent Hunyuan Community (not for the EU, the UK and South Korea)",
    layers=60,
    width=3072,
    input_size=(480, 832),
    max_frames=81,
    frame_step=4,
    token_grid=(30, 52),
    default_cell=(40, 0.7),
    uses_sigma=True,
    parameters=12_821_012_544 + 246_478_803,
    vae_parameters=246_478_803,
    # 14 tensors of 33,016 tokens.
    working_bytes=2_900_000_000,
    # Four activations of 2.7 GB at once in a tile of the VAE, see Open-Sora 2.0.
    vae_working_bytes=16 * 10**9,
    note="Not in the paper; its VAE is Open-Sora 2.0's, its cell the counterpart of that one's.",
    source=Source(
        "hunyuanvideo-community/HunyuanVideo",
        FILES,
        DOWNLOAD_BYTES,
    ),
    taps=("block", "query", "key"),
    fit="stretch",
    takes_prompt=True,
    official="None released. Made for 720 x 1280 and 129 frames, here 480 x 832 and 81.",
)


@register(
    CARD,
    hashes=_hunyuan_published.FAMILY.hashes,
    schedule=SCHEDULE,
    adapt=_hunyuan_published.adapt,
    tiny=_hunyuan_published.write_tiny,
)
def load(card: BackboneCard, target: Target) -> Backbone:
    """The model from a folder in diffusers' layout."""
    return _hunyuan_published.load(card, target, schedule=SCHEDULE)
