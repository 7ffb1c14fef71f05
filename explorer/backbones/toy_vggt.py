"""`toy-vggt`: the shipped feed-forward 3D expert, a small VGGT trained on exact geometry."""

from __future__ import annotations

from explorer.backbones import _toy
from explorer.backbones._options import Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register
from explorer.toy.config import VGGT_CONFIG

CARD = _toy.pixel_card(
    "toy-vggt",
    title="Toy VGGT: small feed-forward 3D expert",
    kind="3D expert",
    layers=VGGT_CONFIG["pairs"],
    width=2 * VGGT_CONFIG["dim"],
    default_cell=(5, 0.0),
    parameters=10_163_096,
    memory_bytes=400 * 2**20,
    taps=("block", "query", "key"),
    note="Trained on exact geometry of rendered frames: how far an expert gets on this world.",
)


def load(card: BackboneCard, target: Target) -> Backbone:
    """The weights of the model's folder, float16 there, in the wanted dtype here."""
    from explorer.backbones import _toy_network, _toy_vggt

    return _toy_network.load_backbone(_toy_vggt.VggtBackbone, _toy_vggt.load_vggt, card, target)


if _toy.is_shipped(CARD.id):
    register(CARD, hashes=lambda target: _toy.pixel_hashes(CARD.id), schedule=_toy.SCHEDULE)(load)
