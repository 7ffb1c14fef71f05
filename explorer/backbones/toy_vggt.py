"""`toy-vggt`: the shipped feed-forward 3D expert, a small VGGT trained on exact geometry."""

from __future__ import annotations

from explorer.backbones import _files, _toy
from explorer.backbones._options import Target
from explorer.backbones.base import Backbone, BackboneCard, Hashes
from explorer.backbones.registry import register
from explorer.toy.config import FRAMES, HEIGHT, VGGT_CONFIG, WIDTH

NAME = "toy-vggt"
PARAMETERS = 10_163_096


def hashes(target: Target) -> Hashes:
    """sha256 over the folder's configuration and weights.

    Raises:
        BackboneError: a file is missing.
    """
    return Hashes(_files.files_hash(_toy.folder(NAME)), None)


def load(card: BackboneCard, target: Target) -> Backbone:
    """The weights of the model's folder, float16 there, in the wanted dtype here."""
    from explorer.backbones import _toy_vggt

    return _toy_vggt.VggtBackbone(
        card,
        _toy_vggt.load_vggt(_toy.folder(NAME), device=target.device, dtype=target.dtype),
        weights_hash=hashes(target).weights,
        trained=_toy.is_trained(NAME),
    )


CARD = BackboneCard(
    id=NAME,
    title="Toy VGGT: small feed-forward 3D expert",
    kind="3D expert",
    licence="Apache-2.0",
    layers=VGGT_CONFIG["pairs"],
    width=2 * VGGT_CONFIG["dim"],
    input_size=(HEIGHT, WIDTH),
    max_frames=FRAMES,
    frame_step=_toy.FRAME_STEP,
    token_grid=_toy.TOKEN_GRID,
    default_cell=(3, 0.0),
    uses_sigma=False,
    parameters=PARAMETERS,
    memory_bytes=400 * 2**20,
    note="Trained on exact geometry of rendered frames: how far an expert gets on this world.",
)

if _toy.is_shipped(NAME):
    register(CARD, hashes=hashes, schedule=_toy.SCHEDULE)(load)
