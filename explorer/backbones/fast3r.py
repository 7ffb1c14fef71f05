"""Fast3R: many views of one scene in one pass (Yang et al. 2025, arXiv 2501.13928).

A 3D expert: it was trained to give point maps, and is probed as an upper bound for video models.
The released feature extraction draws the ids that tell views apart anew in every pass; here frame
k has id k, so that the same clip has the same features.
"""

from __future__ import annotations

from explorer.backbones import _fast3r_published
from explorer.backbones._encoder_published import NoNoise
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register

CARD = BackboneCard(
    id="fast3r",
    title="Fast3R ViT-L, 512",
    kind="3D expert",
    licence="FAIR Noncommercial Research License",
    # 24 of the encoder, which sees each frame alone, and 24 of the decoder, which sees all
    layers=48,
    width=1024,
    input_size=(288, 512),
    # the released extraction passes up to 150 frames at once
    max_frames=150,
    frame_step=1,
    token_grid=(18, 32),
    default_cell=(47, 0.0),
    uses_sigma=False,
    parameters=606_459_904,
    # 86,400 tokens: hidden layer of the MLP twice, q, k and their rotation in float32
    working_bytes=3_500_000_000,
    note="Trained for 3D, on many views at once: what video models are measured against.",
    # 654,186,888 values in float32, with two heads that are not used here
    source=Source(
        "jedyang97/Fast3R_ViT_Large_512", ("config.json", "model.safetensors"), 2_620_000_000
    ),
    taps=("block", "query", "key"),
    official="View ids drawn at random in each pass, attention in bfloat16, frames resized by "
    "Lanczos; the last layer (47), after its norm.",
)


@register(
    CARD,
    hashes=_fast3r_published.hashes,
    schedule=NoNoise(),
    adapt=_fast3r_published.adapt,
    tiny=_fast3r_published.write_tiny,
)
def load(card: BackboneCard, target: Target) -> Backbone:
    """Encoder and decoder; the heads in the file are left out."""
    return _fast3r_published.load(card, target)
