"""Where the released extraction has a cell, a look without one shows that cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from explorer.backbones import registry
from explorer.backbones.base import BackboneCard

TABLES: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "golden" / "noise-tables.json").read_text()
)
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


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("wan2.1-1.3b", "wan2.1"),
        ("wan2.1-14b", "wan2.1"),
        ("wan2.1-i2v-14b", "wan2.1"),
        ("cogvideox-2b", "cogvideox-2b"),
        ("cogvideox-2b-official", "cogvideox-2b"),
        ("cogvideox-5b", "cogvideox-5b"),
        ("cogvideox-5b-official", "cogvideox-5b"),
        ("cogvideox-5b-i2v", "cogvideox-5b"),
        ("cogvideox-5b-i2v-official", "cogvideox-5b"),
        ("aether", "cogvideox-5b"),
        ("aether-geometry", "cogvideox-5b"),
        ("aether-official", "cogvideox-5b"),
        ("open-sora-2.0", "open-sora-2.0"),
    ],
)
def test_a_registered_model_names_noise_levels_as_the_reference_schedulers_do(
    name: str, table: str
) -> None:
    sigmas = ("sigma_of_index", "sqrt_one_minus_alpha_bar", "t_shifted")
    timesteps = ("model_timestep", "t_shifted")
    signals = ("x0_coefficient", "sqrt_alpha_bar")
    for row in TABLES[table]["rows"]:
        sigma, timestep, signal = (
            next(row[key] for key in keys if key in row) for keys in (sigmas, timesteps, signals)
        )
        level = registry.noise_level(name, sigma)
        assert level is not None
        assert level.timestep == pytest.approx(timestep, abs=1e-5)
        assert level.signal == pytest.approx(signal, abs=1e-5)
        assert level.official_index == row.get("index", round(1000 * row.get("t", 0)))


def test_models_of_the_paper_and_of_diffusers_are_shown_whole_frames_others_square_pixels() -> None:
    stretched = {card.id for card in registry.cards() if card.fit == "stretch"}
    families = ("wan", "cogvideox", "aether", "open-sora", "hunyuan", "ltx", "mochi", "svd")
    families += ("vjepa1", "dinov2", "dinov3", "videoprism")
    assert stretched == {
        card.id
        for card in registry.cards()
        if card.source is not None and card.id.startswith(families)
    }
