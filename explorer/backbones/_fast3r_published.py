"""Fast3R's published folder: card, hashes, loading, and a tiny folder of the same layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones import _views_files
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard, Hashes
from explorer.errors import BackboneError

if TYPE_CHECKING:
    from explorer.backbones._fast3r import Fast3RBackbone
    from explorer.nets.fast3r import Fast3RConfig

LAYOUT = "jedyang97/Fast3R_ViT_Large_512 (config.json, model.safetensors)"
HEADS = ("downstream_head.", "downstream_head_local.")


def hashes(target: Target) -> Hashes:
    """The fingerprint of the files."""
    return _views_files.hashes(target, what=LAYOUT)


def sizes(folder: Path) -> dict[str, Any]:
    """Fields of `Fast3RConfig` as config.json states them; what it does not state is as released.

    Raises:
        BackboneError: it is broken, or encoder and decoder have different widths, which one card
            cannot describe.
    """
    config = _views_files.config(folder)
    parts = {part: config.get(f"{part}_args", {}) for part in ("encoder", "decoder")}
    found = {
        f"{part}_{ours}": settings[theirs]
        for part, settings in parts.items()
        for ours, theirs in (("dim", "embed_dim"), ("depth", "depth"), ("heads", "num_heads"))
        if theirs in settings
    }
    if "patch_size" in parts["encoder"]:
        found["patch"] = parts["encoder"]["patch_size"]
    if "mlp_ratio" in parts["encoder"]:
        found["mlp_ratio"] = parts["encoder"]["mlp_ratio"]
    widths = [found.get(f"{part}_dim", 1024) for part in parts]
    if widths[0] != widths[1]:
        raise BackboneError(
            f"{folder}: an encoder of width {widths[0]} before a decoder of width {widths[1]} "
            "cannot be read: their layers would differ"
        )
    return found


def adapt(card: BackboneCard, folder: Path) -> BackboneCard:
    """The card of the weights in a folder.

    Raises:
        BackboneError: a file is missing or broken.
    """
    found = sizes(folder)
    return _views_files.adapt(
        card,
        folder,
        what=LAYOUT,
        unused=HEADS,
        layers=found.get("encoder_depth", 24) + found.get("decoder_depth", 24),
        width=found.get("encoder_dim", card.width),
        patch=found.get("patch", 16),
    )


def load(card: BackboneCard, target: Target) -> Fast3RBackbone:
    """The network behind `extract`.

    Raises:
        BackboneError: the weights are missing, broken or of another structure.
    """
    from explorer.backbones import _fast3r, _views
    from explorer.nets.fast3r import Fast3R

    config = _config(target.folder)
    network = _views.load(
        lambda: Fast3R(config),
        None,
        _views_files.weights_file(target.folder, what=LAYOUT),
        target,
        unused=HEADS,
        offload_parts=("encoder", "decoder"),
    )
    return _fast3r.Fast3RBackbone(card, network, target, weights_hash=hashes(target).weights)


def write_tiny(folder: Path) -> None:
    """Random weights of a tiny Fast3R in the published layout, with a tensor of a head."""
    import torch
    from safetensors.torch import save_file

    from explorer.backbones import _tiny
    from explorer.nets.fast3r import Fast3R

    shared = {"embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 4.0}
    config = {
        "encoder_args": {**shared, "patch_size": 16, "num_heads": 2},
        "decoder_args": {**shared, "depth": 3},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    network = Fast3R(_config(folder))
    _tiny.randomize(network, torch.Generator().manual_seed(0))
    head = {f"{prefix}proj.weight": torch.zeros(2, 3) for prefix in HEADS}
    save_file({**network.state_dict(), **head}, folder / "model.safetensors")


def _config(folder: Path) -> Fast3RConfig:
    from explorer.nets.fast3r import Fast3RConfig

    return Fast3RConfig(**sizes(folder))
