"""The cells of the map that are probed: grids, parts of grids, and the best cells of runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explorer.probe.checkpoint import list_probes

SIGMAS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
LAYERS = (1, 3, 5, 7, 9)
OTHERS = [(layer, sigma) for sigma in (0.0, 0.1) for layer in (1, 3, 5, 7)] + [(5, 0.3)]
"""(layer, sigma) at which the other transformers are probed."""
CHOSEN_BY = "validation_points"
TRAINED = ("batch", "seed", "rate", "camera_weight")
"""What a shipped probe's card says of its training besides data and steps."""


@dataclass(frozen=True)
class Cell:
    """One place to probe."""

    backbone: str
    layer: int
    sigma: float

    @property
    def name(self) -> str:
        """Key of the cell in a checkpoint."""
        return f"{self.backbone}:{self.layer}:{self.sigma}"


def first_grid() -> list[Cell]:
    """toy-wan at four layers and three noise levels, and the controls."""
    sigmas = (0.1, 0.3, 0.5)
    cells = [Cell("toy-wan", layer, sigma) for sigma in sigmas for layer in (1, 3, 5, 7)]
    cells += [Cell("random", 5, sigma) for sigma in sigmas]
    return [*cells, Cell("latent", 0, 0.1), Cell("rgb", 0, 0.0)]


def full_grid() -> list[Cell]:
    """toy-wan at five layers and seven noise levels; layers of one level stand together."""
    return [Cell("toy-wan", layer, sigma) for sigma in SIGMAS for layer in LAYERS]


def others_grid(models: Iterable[str]) -> list[Cell]:
    """Among which every other model's and control's best cells are chosen on validation.

    Args:
        models: which there are besides the controls, by their names.
    """
    cells = [Cell("rgb", 0, 0.0), *(Cell("latent", 0, sigma) for sigma in (0.0, 0.1, 0.3))]
    layers = {"toy-vggt": (1, 3, 5), "toy-jepa": (5, 9, 13)}
    names = {"random", *models} - {"toy-wan"}
    if "toy-wan-large" in names:
        names.add("random-large")
    for name in sorted(names):
        if name in layers:
            cells += [Cell(name, layer, 0.0) for layer in layers[name]]
        else:
            cells += [Cell(name, layer, sigma) for layer, sigma in OTHERS]
    return cells


def parse_cell(text: str) -> Cell:
    """A cell written as backbone:layer:sigma."""
    backbone, layer, sigma = text.split(":")
    return Cell(backbone, int(layer), float(sigma))


def part_of(cells: Sequence[Cell], text: str) -> list[Cell]:
    """A part of a grid, written as "2/3": the second of three, in the grid's order.

    Raises:
        ValueError: written otherwise, or there is no such part.
    """
    try:
        number, count = (int(word) for word in text.split("/"))
    except ValueError:
        raise ValueError(f"part {text!r}: write 2/3 for the second of three parts") from None
    if not 1 <= number <= count:
        raise ValueError(f"part {text!r}: the first number goes from 1 to the second")
    ends = [round(len(cells) * k / count) for k in (number - 1, number)]
    return list(cells[ends[0] : ends[1]])


def read_cards(runs: Iterable[Path]) -> list[dict[str, Any]]:
    """The cards of all processes of probe runs, or of shipped probes; weights are not needed."""
    found: list[dict[str, Any]] = []
    for run in runs:
        paths = sorted(run.glob("probes*.json"))
        found += [json.loads(path.read_text()) for path in paths] or shipped_cards(run)
    return found


def shipped_cards(folder: Path) -> list[dict[str, Any]]:
    """What the run of each shipped probe said of it (first seeds only), as a run of one cell."""
    found = []
    for probe in list_probes(root=folder):
        options = {name: probe.data[name] for name in TRAINED if name in probe.data}
        cell = Cell(probe.backbone, probe.layer, probe.sigma)
        found.append(
            {
                **options,
                "steps": probe.steps,
                "data": {k: v for k, v in probe.data.items() if k not in TRAINED},
                "cells": {cell.name: {**vars(cell), "metrics": probe.metrics}},
                "finished": True,
            }
        )
    return found


def best_cells(cards: Iterable[dict[str, Any]], top: int) -> list[Cell]:
    """The `top` cells of every backbone with the lowest validation point loss, best first."""
    found: dict[str, list[tuple[float, Cell]]] = {}
    for card in cards:
        for cell in card["cells"].values():
            place = Cell(cell["backbone"], cell["layer"], cell["sigma"])
            if CHOSEN_BY in cell["metrics"]:
                found.setdefault(place.backbone, []).append((cell["metrics"][CHOSEN_BY], place))
    return [
        cell
        for ranked in found.values()
        for _, cell in sorted(ranked, key=lambda each: each[0])[:top]
    ]
