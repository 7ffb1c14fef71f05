"""Which cells are probed, in which parts, and which of them are best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from explorer.toy.cells import (
    LAYERS,
    SIGMAS,
    Cell,
    best_cells,
    first_grid,
    full_grid,
    others_grid,
    parse_cell,
    part_of,
    read_cards,
)


def test_the_first_grid_holds_the_cells_that_the_laboratory_promises() -> None:
    cells = first_grid()
    assert len(cells) == len(set(cells)) == 17
    assert {c.layer for c in cells if c.backbone == "toy-wan"} == {1, 3, 5, 7}
    assert {c.sigma for c in cells if c.backbone == "random"} == {0.1, 0.3, 0.5}
    assert parse_cell("latent:0:0.1") == Cell("latent", 0, 0.1)


def test_the_full_grid_has_seven_noise_levels_of_five_layers_each_together() -> None:
    cells = full_grid()
    assert len(set(cells)) == 35
    assert {cell.sigma for cell in cells[:5]} == {0.0}
    assert [cell.layer for cell in cells[5:10]] == list(LAYERS)
    assert sorted({cell.sigma for cell in cells}) == list(SIGMAS)


def test_the_grid_of_the_others_has_controls_and_whatever_was_trained() -> None:
    alone = {cell.backbone for cell in others_grid(["toy-wan"])}
    assert alone == {"rgb", "latent", "random"}
    cells = others_grid(["toy-wan", "toy-wan-large", "toy-image", "toy-vggt", "toy-jepa"])
    assert len(cells) == len(set(cells))
    assert {cell.backbone for cell in cells} - alone == {
        "random-large", "toy-wan-large", "toy-image", "toy-vggt", "toy-jepa",
    }  # fmt: skip
    of_expert = [cell for cell in cells if cell.backbone == "toy-vggt"]
    assert {cell.sigma for cell in of_expert} == {0.0}


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_parts_of_a_grid_are_the_whole_grid_in_its_order(count: int) -> None:
    cells = full_grid()
    parts = [part_of(cells, f"{number}/{count}") for number in range(1, count + 1)]
    assert [cell for part in parts for cell in part] == cells
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["2", "0/2", "3/2", "a/b"])
def test_a_part_that_does_not_exist_is_answered(text: str) -> None:
    with pytest.raises(ValueError, match="part"):
        part_of(full_grid(), text)


def test_the_best_cells_of_each_backbone_are_chosen_on_validation(tmp_path: Path) -> None:
    def card(cells: dict[str, float]) -> dict[str, Any]:
        return {
            "cells": {
                name: {**vars(parse_cell(name)), "metrics": {"validation_points": loss}}
                for name, loss in cells.items()
            }
        }

    first = card({"toy-wan:1:0.1": 0.3, "toy-wan:3:0.1": 0.2})
    second = card({"toy-wan:5:0.1": 0.25, "rgb:0:0.0": 0.4})
    for name, content in (("probes0", first), ("probes1", second)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    cards = read_cards([tmp_path])
    assert best_cells(cards, 2) == [
        Cell("toy-wan", 3, 0.1), Cell("toy-wan", 5, 0.1), Cell("rgb", 0, 0.0),
    ]  # fmt: skip
    unfinished = {"cells": {"rgb:0:0.0": {**vars(Cell("rgb", 0, 0.0)), "metrics": {}}}}
    assert best_cells([unfinished], 1) == []
