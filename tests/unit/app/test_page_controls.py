"""What the page itself knows about each backbone's controls."""

from __future__ import annotations

import json
from typing import Any

from app import cell, controls
from explorer.backbones import registry


def table(script: str) -> dict[str, Any]:
    """What a script looks backbones up in."""
    found: dict[str, Any] = json.JSONDecoder().raw_decode(script[script.index("({") + 1 :])[0]
    return found


def test_each_backbone_comes_with_its_own_cell_inside_its_own_range() -> None:
    chosen, ranges = table(controls.chosen_js()), table(controls.ranges_js())
    assert chosen.keys() == ranges.keys() == {card.id for card in registry.here()}
    for name, (about, layer, sigma) in chosen.items():
        card = registry.card(name)
        assert about == cell.about(name)
        assert (layer["value"], sigma["value"]) == card.default_cell
        assert layer["value"] < card.layers <= layer["maximum"] + 1 <= controls.last_layer() + 1
        for given, alone in zip((layer, sigma), ranges[name], strict=True):
            assert alone == {key: value for key, value in given.items() if key != "value"}


def test_backbones_can_be_told_apart_by_what_is_said_about_them() -> None:
    said = [cell.about(card.id) for card in registry.cards()]
    assert len(set(said)) == len(said)
