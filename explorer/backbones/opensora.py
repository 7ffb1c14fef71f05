"""Open-Sora 2.0: text and image to video, the Hunyuan VAE and a multimodal transformer (2025).

Blocks are counted through both kinds: 0 to 18 are double-stream, 19 to 56 single-stream. The
paper's layer 20 is single-stream block 20, number 39 here.

The model embeds sigma itself. Open-Sora shifts its time t with size and length before that; the
official index is the released extraction's t in thousandths, for the 129 frames that it always
takes. A shorter clip at one sigma has another t, which the model is not told.
"""

from __future__ import annotations

from explorer.backbones import _opensora_published
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register
from explorer.noise import OpenSoraSchedule

GRID = (30, 53)
SCHEDULE = OpenSoraSchedule(tokens_per_frame=GRID[0] * GRID[1], latent_frames=33)
# The repository's 69.2 GB less the image model and its VAE, which are not needed.
DOWNLOAD_BYTES = 45_100_000_000

CARD = BackboneCard(
    id="open-sora-2.0",
    title="Open-Sora 2.0, 11B",
    kind="video diffusion",
    licence="Apache-2.0; VAE: Tencent Hunyuan Community (not for the EU, the UK, South Korea)",
    layers=57,
    width=3072,
    input_size=(480, 848),
    max_frames=129,
    frame_step=4,
    token_grid=GRID,
    default_cell=(39, 0.764),
    uses_sigma=True,
    parameters=11_891_390_528 + 246_478_803,
    vae_parameters=246_478_803,
    # 14 tensors of 52,982 tokens.
    working_bytes=4_600_000_000,
    # Four activations of 4.3 GB at once in the VAE's first blocks, where a float32 tile has 128
    # channels, 129 frames and 256 x 256 pixels, and room for what its convolutions need.
    vae_working_bytes=25 * 10**9,
    note="A video generator of the paper; it is always shown the first frame without noise.",
    source=Source(
        "hpcai-tech/Open-Sora-v2",
        (
            _opensora_published.TRANSFORMER,
            _opensora_published.VAE,
            f"{_opensora_published.T5}/*",
            f"{_opensora_published.CLIP}/*",
        ),
        DOWNLOAD_BYTES,
    ),
    taps=("block", "query", "key"),
    fit="stretch",
    takes_prompt=True,
    first_frame=True,
    official="Always 129 frames of which 21 latent frames are kept, all in bfloat16, seed 42; "
    "single-stream block 20, --t 0.25 (sigma 0.764); noise drawn by the released code's generator.",
)


@register(
    CARD,
    hashes=_opensora_published.hashes,
    schedule=SCHEDULE,
    adapt=_opensora_published.adapt,
    tiny=_opensora_published.write_tiny,
)
def load(card: BackboneCard, target: Target) -> Backbone:
    """The model from a folder like the published one."""
    return _opensora_published.load(card, target, schedule=SCHEDULE)
