"""V-JEPA 2: self-supervised video encoders (Assran et al., 2025, arXiv 2506.09985).

Up to 64 frames at once, two to a token, rotary positions in time, row and column. The input is
square as published, the centred part of a frame. The last layer is the final LayerNorm's output.
The predictor that the files also hold is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from explorer.backbones import _encoder_published
from explorer.backbones._encoder_published import WEIGHTS, NoNoise, Sizes, block_parameters
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register

SCHEDULE = NoNoise()
PREDICTOR = 22_000_000
"""Weights of the predictor, about: the files are that much longer."""


def sizes(config: dict[str, Any]) -> Sizes:
    """Sizes of the encoder of a VJEPA2Model."""
    dim, patch, blocks = config["hidden_size"], config["patch_size"], config["num_hidden_layers"]
    # embedding of boxes of pixels, final norm; positions are rotations
    around = (3 * config["tubelet_size"] * patch**2 + 1) * dim + 2 * dim
    block = block_parameters(dim, int(dim * config["mlp_ratio"]))
    frames, square = config["frames_per_clip"], config["crop_size"]
    return Sizes(blocks, dim, patch, around + blocks * block, square=square, frames=frames)


FAMILY = _encoder_published.Family("vjepa2", "facebook/vjepa2-vitl-fpc64-256", sizes)


def published(width: int, heads: int, blocks: int, side: int, ratio: float = 4.0) -> dict[str, Any]:
    """What the published config.json says of sizes (from the paper and the library's converter)."""
    return {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_hidden_layers": blocks,
        "mlp_ratio": ratio,
        "patch_size": 16,
        "tubelet_size": 2,
        "frames_per_clip": 64,
        "crop_size": side,
    }


CONFIGS = {
    "vjepa2-l": published(1024, 16, 24, 256),
    "vjepa2-h": published(1280, 16, 32, 256),
    "vjepa2-g": published(1408, 22, 40, 384, 48 / 11),
}


def make_card(name: str, repo: str, title: str, *, note: str, licence: str = "MIT") -> BackboneCard:
    """One published size."""
    found = sizes(CONFIGS[name])
    side = CONFIGS[name]["crop_size"]
    grid = side // 16
    return BackboneCard(
        id=name,
        title=title,
        kind="video encoder",
        licence=licence,
        layers=found.blocks + 1,
        width=found.width,
        input_size=(side, side),
        max_frames=64,
        frame_step=1,
        token_grid=(grid, grid),
        default_cell=(found.blocks, 0.0),
        uses_sigma=False,
        parameters=found.parameters,
        # 32 slots of tokens, about 24 tensors of them in one block: rotations make copies
        working_bytes=24 * 2 * 32 * grid * grid * found.width,
        note=note,
        # files are float32
        source=Source(repo, WEIGHTS, 4 * (found.parameters + PREDICTOR)),
        taps=("block", "query", "key"),
        official=(
            "Not in the paper, which has V-JEPA 1. Its own preprocessing also cuts an eighth off "
            "the centred square, which is kept here. Clips of an odd number of frames begin with "
            f"frame 0 twice. Layer {found.blocks} is after the final norm."
        ),
    )


CARDS = (
    make_card(
        "vjepa2-l",
        "facebook/vjepa2-vitl-fpc64-256",
        "V-JEPA 2 ViT-L/16, 256 px",
        note="A video encoder that learnt from a million hours, in its smallest size.",
    ),
    make_card(
        "vjepa2-h",
        "facebook/vjepa2-vith-fpc64-256",
        "V-JEPA 2 ViT-H/16, 256 px",
        note="V-JEPA 2 at the size of the paper's V-JEPA 1.",
    ),
    make_card(
        "vjepa2-g",
        "facebook/vjepa2-vitg-fpc64-384",
        "V-JEPA 2 ViT-g/16, 384 px",
        licence="Apache-2.0",
        note="The largest V-JEPA 2, at its finest published grid.",
    ),
)


def write_tiny(folder: Path) -> None:
    """Random weights of a tiny V-JEPA 2 in the published layout."""
    from explorer.backbones import _vjepa2

    _vjepa2.write_tiny(folder)


def load(card: BackboneCard, target: Target) -> Backbone:
    """A V-JEPA 2 encoder from a folder in transformers' layout.

    Raises:
        BackboneError: transformers or a file is missing, too old, broken, or does not fit.
    """
    _encoder_published.need_transformers(card)
    from explorer.backbones import _vjepa2

    return _vjepa2.load(card, target, FAMILY)


for _card in CARDS:
    register(_card, hashes=FAMILY.hashes, schedule=SCHEDULE, adapt=FAMILY.adapt, tiny=write_tiny)(
        load
    )
