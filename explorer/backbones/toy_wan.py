"""`toy-wan`: the shipped video diffusion transformer, a small Wan2.1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from explorer.assets import assets_root
from explorer.backbones import _files
from explorer.backbones._options import Target
from explorer.backbones.base import Backbone, BackboneCard, Hashes
from explorer.backbones.registry import register
from explorer.errors import EmergeError
from explorer.noise import FlowSchedule
from explorer.toy.config import FLOW_SHIFT, FRAMES, HEIGHT, TRANSFORMER_CONFIG, WIDTH

TOKEN_GRID = (18, 32)
FRAME_STEP = 4
LAYERS: int = TRANSFORMER_CONFIG["num_layers"]
TOKEN_WIDTH: int = (
    TRANSFORMER_CONFIG["num_attention_heads"] * TRANSFORMER_CONFIG["attention_head_dim"]
)
SCHEDULE = FlowSchedule(FLOW_SHIFT)
TAPS = ("block", "query", "key")
VAE_PARAMETERS = 1_838_955
TRANSFORMER_PARAMETERS = 6_311_264


def model_folder() -> Path:
    """Where vae/, transformer/, scheduler/ and card.json are."""
    return assets_root() / "models" / "toy-wan"


def model_card() -> dict[str, Any]:
    """What the training wrote: data, steps, seconds, loss, trained; empty where it is missing."""
    try:
        card: dict[str, Any] = json.loads((model_folder() / "card.json").read_text())
    except (OSError, ValueError, EmergeError):
        return {}
    return card


def is_trained() -> bool:
    """Whether the shipped weights have seen any training."""
    return bool(model_card().get("trained", False))


def encoder_hash() -> str:
    """sha256 over the VAE's files.

    Raises:
        BackboneError: a file is missing.
    """
    return _files.files_hash(model_folder() / "vae")


def hashes() -> Hashes:
    """sha256 over the files of VAE and transformer, and over the VAE's alone.

    Raises:
        BackboneError: a file is missing.
    """
    folder = model_folder()
    return Hashes(_files.files_hash(folder / "vae", folder / "transformer"), encoder_hash())


UNTRAINED = "" if is_trained() else " (untrained weights)"


@register(
    BackboneCard(
        id="toy-wan",
        title=f"Toy Wan: small video diffusion transformer{UNTRAINED}",
        kind="video diffusion",
        licence="Apache-2.0",
        layers=LAYERS,
        width=TOKEN_WIDTH,
        input_size=(HEIGHT, WIDTH),
        max_frames=FRAMES,
        frame_step=FRAME_STEP,
        token_grid=TOKEN_GRID,
        default_cell=(5, 0.3),
        uses_sigma=True,
        parameters=VAE_PARAMETERS + TRANSFORMER_PARAMETERS,
        memory_bytes=700 * 2**20,
        taps=TAPS,
        note="Stands for the video generators: trained on rendered pixels only, never on 3D.",
    ),
    hashes=lambda target: hashes(),
    schedule=SCHEDULE,
)
def load(card: BackboneCard, target: Target) -> Backbone:
    """The weights of the shipped model folder, float16 there, in the wanted dtype here."""
    from explorer.backbones import _wan, _wan_files

    folder, found = model_folder(), hashes()
    return _wan.WanBackbone(
        card,
        _wan_files.load_vae(folder / "vae", device=target.device),
        _wan_files.load_transformer(
            folder / "transformer", device=target.device, dtype=target.dtype
        ),
        weights_hash=found.weights,
        encoder_hash=found.encoder,
        trained=is_trained(),
    )
