"""VGGT's published folder: card, hashes, loading, and a tiny folder of the same layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones import _views_files
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard, Hashes

if TYPE_CHECKING:
    from explorer.backbones._vggt import VGGTBackbone
    from explorer.nets.vggt import Aggregator

LAYOUT = "facebook/VGGT-1B (config.json, model.safetensors or model.pt)"
PREFIX = "aggregator."
HEADS = ("camera_head.", "depth_head.", "point_head.", "track_head.")
# the published file states the first two alone
NAMES = {
    "embed_dim": "dim",
    "patch_size": "patch",
    "depth": "pairs",
    "num_heads": "heads",
    "embedder_depth": "embedder_depth",
    "embedder_num_heads": "embedder_heads",
}


def hashes(target: Target) -> Hashes:
    """The fingerprint of the files."""
    return _views_files.hashes(target, what=LAYOUT)


def sizes(folder: Path) -> dict[str, Any]:
    """Fields of `VGGTConfig` as config.json states them; what it does not state is as released.

    Raises:
        BackboneError: it is broken.
    """
    config = _views_files.config(folder)
    found = {ours: config[theirs] for theirs, ours in NAMES.items() if theirs in config}
    if "img_size" in config:
        found["native_grid"] = config["img_size"] // config.get("patch_size", 14)
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
        layers=found.get("pairs", card.layers),
        width=2 * found.get("dim", card.width // 2),
        patch=found.get("patch", 14),
    )


def load(card: BackboneCard, target: Target) -> VGGTBackbone:
    """The aggregator behind `extract`.

    Raises:
        BackboneError: the weights are missing, broken or of another structure.
    """
    from explorer.backbones import _vggt, _views

    found = sizes(target.folder)
    network = _views.load(
        lambda: _make(found),
        lambda: _make({**found, "pairs": 0, "embedder_depth": 0}),
        _views_files.weights_file(target.folder, what=LAYOUT),
        target,
        prefix=PREFIX,
        unused=HEADS,
    )
    return _vggt.VGGTBackbone(card, network, target, weights_hash=hashes(target).weights)


def _make(fields: dict[str, Any]) -> Aggregator:
    from explorer.nets.vggt import Aggregator, VGGTConfig

    return Aggregator(VGGTConfig(**fields))


def write_tiny(folder: Path) -> None:
    """Random weights of a tiny VGGT in the published layout, with a tensor of each head."""
    import torch
    from safetensors.torch import save_file

    from explorer.backbones import _tiny

    config = {
        "embed_dim": 32,
        "patch_size": 14,
        "img_size": 56,
        "depth": 3,
        "num_heads": 4,
        "embedder_depth": 2,
        "embedder_num_heads": 2,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    network = _make(sizes(folder))
    _tiny.randomize(network, torch.Generator().manual_seed(0))
    state = {f"{PREFIX}{name}": value for name, value in network.state_dict().items()}
    heads = {f"{prefix}proj.weight": torch.zeros(2, 3) for prefix in HEADS}
    save_file({**state, **heads}, folder / "model.safetensors")
