"""Where the released extraction has a cell, a look without one shows that cell."""

from __future__ import annotations

import pytest

from explorer.backbones import registry
from explorer.backbones.base import BackboneCard

RELEASED = [card for card in registry.cards() if "--t 749" in card.official]


@pytest.mark.parametrize("card", RELEASED, ids=lambda card: card.id)
def test_the_default_cell_is_layer_20_at_index_749(card: BackboneCard) -> None:
    layer, sigma = card.default_cell
    level = registry.noise_level(card.id, sigma)
    assert level is not None
    assert (layer, level.official_index) == (20, 749)


def test_wan_is_told_timestep_502_as_in_the_paper() -> None:
    for name in ("wan2.1-1.3b", "wan2.1-14b", "wan2.1-i2v-14b"):
        assert name in {card.id for card in RELEASED}
        level = registry.noise_level(name, registry.card(name).default_cell[1])
        assert level is not None
        assert level.timestep == 502


def test_models_of_the_paper_and_of_diffusers_are_shown_whole_frames_others_square_pixels() -> None:
    stretched = {card.id for card in registry.cards() if card.fit == "stretch"}
    families = ("wan", "cogvideox", "aether", "open-sora", "hunyuan", "ltx", "mochi", "svd")
    families += ("vjepa1", "dinov2", "dinov3", "videoprism")
    assert stretched == {
        card.id
        for card in registry.cards()
        if card.source is not None and card.id.startswith(families)
    }
