"""`toy-jepa`: the shipped predictive video encoder, trained like V-JEPA on pixels alone."""

from __future__ import annotations

from explorer.backbones import _toy
from explorer.backbones._options import Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register
from explorer.toy.config import JEPA_CONFIG

CARD = _toy.pixel_card(
    "toy-jepa",
    title="Toy JEPA: small predictive video encoder",
    kind="video encoder",
    layers=JEPA_CONFIG["depth"],
    width=JEPA_CONFIG["dim"],
    default_cell=(9, 0.0),
    parameters=6_862_272,
    memory_bytes=500 * 2**20,
    note="Trained to predict features of what is masked, never pixels: video without generation.",
)


def load(card: BackboneCard, target: Target) -> Backbone:
    """The weights of the model's folder, float16 there, in the wanted dtype here."""
    from explorer.backbones import _toy_jepa, _toy_network

    return _toy_network.load_backbone(_toy_jepa.JepaBackbone, _toy_jepa.load_jepa, card, target)


if _toy.is_shipped(CARD.id):
    register(CARD, hashes=lambda target: _toy.pixel_hashes(CARD.id), schedule=_toy.SCHEDULE)(load)
