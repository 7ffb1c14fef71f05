"""The cells of the map that are probed."""

from __future__ import annotations

from dataclasses import dataclass


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


def parse_cell(text: str) -> Cell:
    """A cell written as backbone:layer:sigma."""
    backbone, layer, sigma = text.split(":")
    return Cell(backbone, int(layer), float(sigma))
