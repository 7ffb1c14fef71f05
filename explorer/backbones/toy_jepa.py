"""`toy-jepa`: the shipped predictive video encoder, trained like V-JEPA on pixels alone."""

from __future__ import annotations

from explorer.backbones import _files, _toy
from explorer.backbones._options import Target
from explorer.backbones.base import Backbone, BackboneCard, Hashes
from explorer.backbones.registry import register
from explorer.toy.config import FRAMES, HEIGHT, JEPA_CONFIG, WIDTH

NAME = "toy-jepa"
PARAMETERS = 6_862_272


def hashes(target: Target) -> Hashes:
    """sha256 over the folder's configuration and weights.

    Raises:
        BackboneError: a file is missing.
    """
    return Hashes(_files.files_hash(_toy.folder(NAME)), None)


def load(card: BackboneCard, target: Target) -> Backbone:
    """The weights of the model's folder, float16 there, in the wanted dtype here."""
    from explorer.backbones import _toy_jepa

    return _toy_jepa.JepaBackbone(
        card,
        _toy_jepa.load_jepa(_toy.folder(NAME), device=target.device, dtype=target.dtype),
        weights_hash=hashes(target).weights,
        trained=_toy.is_trained(NAME),
    )


CARD = BackboneCard(
    id=NAME,
    title="Toy JEPA: small predictive video encoder",
    kind="video encoder",
    licence="Apache-2.0",
    layers=JEPA_CONFIG["depth"],
    width=JEPA_CONFIG["dim"],
    input_size=(HEIGHT, WIDTH),
    max_frames=FRAMES,
    frame_step=_toy.FRAME_STEP,
    token_grid=_toy.TOKEN_GRID,
    default_cell=(9, 0.0),
    uses_sigma=False,
    parameters=PARAMETERS,
    memory_bytes=500 * 2**20,
    note="Trained to predict features of what is masked, never pixels: video without generation.",
)

if _toy.is_shipped(NAME):
    register(CARD, hashes=hashes, schedule=_toy.SCHEDULE)(load)
