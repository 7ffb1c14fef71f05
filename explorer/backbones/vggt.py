"""VGGT's aggregator as a backbone (Wang et al. 2025, arXiv 2503.11651).

A 3D expert: pairs of attention within each frame and over all frames, trained for depth, points
and cameras. The layer is a pair; its feature is what VGGT's own heads read.
"""

from __future__ import annotations

from explorer.backbones import _vggt_published
from explorer.backbones._encoder_published import NoNoise
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register

CARD = BackboneCard(
    id="vggt-1b",
    title="VGGT 1B, aggregator",
    kind="3D expert",
    licence="CC BY-NC 4.0 (facebook/VGGT-1B-Commercial, gated: other terms, same layout)",
    layers=24,
    width=2048,
    input_size=(294, 518),
    max_frames=150,
    frame_step=1,
    token_grid=(21, 37),
    # the last of the four pairs that its heads read
    default_cell=(23, 0.0),
    uses_sigma=False,
    parameters=909_112_320,
    # 117,300 tokens: hidden layer of the MLP twice, q, k and their rotation in float32
    working_bytes=5_500_000_000,
    note="Trained for 3D; the reference geometry of the paper comes from the heads on top of it.",
    # 1,256,537,516 values in float32, with heads that are not used here
    source=Source("facebook/VGGT-1B", ("config.json", "model.safetensors"), 5_030_000_000),
    taps=("block", "query", "key"),
    official="Not probed by the paper, which takes its depth and cameras as ground truth. Its own "
    "preprocessing keeps the whole width; here the picture keeps its shape.",
)


@register(
    CARD,
    hashes=_vggt_published.hashes,
    schedule=NoNoise(),
    adapt=_vggt_published.adapt,
    tiny=_vggt_published.write_tiny,
)
def load(card: BackboneCard, target: Target) -> Backbone:
    """The aggregator; the heads in the file are left out."""
    return _vggt_published.load(card, target)
