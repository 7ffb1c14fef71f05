"""Models of sizes that tests share: a backbone's card, and the VGGT of the golden vectors."""

from __future__ import annotations

from typing import Any

from explorer.backbones.base import BackboneCard
from explorer.nets.vggt import VGGTConfig

TINY_VGGT = VGGTConfig(
    dim=32,
    heads=4,
    pairs=4,
    native_grid=4,
    embedder_depth=2,
    embedder_heads=4,
    dpt_layers=(0, 1, 2, 3),
    dpt_dim=16,
    dpt_stage_channels=(8, 12, 16, 20),
)


def small_card(name: str, **facts: Any) -> BackboneCard:
    """A card with what most tests do not care about."""
    plain: dict[str, Any] = {
        "title": name.title(),
        "kind": "control",
        "licence": "none",
        "layers": 3,
        "width": 8,
        "input_size": (64, 96),
        "max_frames": 17,
        "frame_step": 4,
        "token_grid": (4, 6),
        "default_cell": (1, 0.3),
        "uses_sigma": True,
        "parameters": 0,
        "memory_bytes": 0,
        "note": "For tests.",
    }
    return BackboneCard(id=name, **{**plain, **facts})
