"""HunyuanVideo 1.5, text to video at 480p: a VAE of 16 x 16 pixels and 54 blocks (Tencent, 2025).

There is no released feature extraction for it. It is guided by a second pass without a prompt, not
by a number that it is told, so that one pass with the empty prompt is what there is to read.
"""

from __future__ import annotations

from explorer.backbones import _hunyuan15_published
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.hunyuan import FILES
from explorer.backbones.registry import register
from explorer.noise import FlowSchedule

SCHEDULE = FlowSchedule(5.0)
# Stored in float32, which is cast while it is read.
DOWNLOAD_BYTES = 53_000_000_000

CARD = BackboneCard(
    id="hunyuanvideo-1.5",
    title="HunyuanVideo 1.5 text to video at 480p, 8B",
    kind="video diffusion",
    licence="Tencent Hunyuan Community (not for the EU, the UK and South Korea)",
    layers=54,
    width=2048,
    input_size=(480, 848),
    max_frames=121,
    frame_step=4,
    token_grid=(30, 53),
    default_cell=(36, 0.625),
    uses_sigma=True,
    parameters=8_326_608_160 + 1_260_634_115,
    vae_parameters=1_260_634_115,
    # 14 tensors of 51,275 tokens.
    working_bytes=3 * 10**9,
    # Five activations of 4.1 GB at once in a tile of the VAE, and room.
    vae_working_bytes=23 * 10**9,
    note="Not in the paper; smaller than HunyuanVideo and newer. The cell is two thirds deep.",
    source=Source(
        _hunyuan15_published.REPOSITORY,
        FILES,
        DOWNLOAD_BYTES,
    ),
    taps=("block", "query", "key"),
    fit="stretch",
    takes_prompt=True,
    official="None released.",
)


@register(
    CARD,
    hashes=_hunyuan15_published.hashes,
    schedule=SCHEDULE,
    adapt=_hunyuan15_published.adapt,
    tiny=_hunyuan15_published.write_tiny,
)
def load(card: BackboneCard, target: Target) -> Backbone:
    """The model from a folder in diffusers' layout."""
    return _hunyuan15_published.load(card, target, schedule=SCHEDULE)
