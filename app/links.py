"""Links to one cell of one clip: what the address bar may say, and the address of what is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

PAPER = "https://arxiv.org/abs/2512.19949"


@dataclass(frozen=True)
class Cell:
    """What a link asks for; None where it says nothing or nothing sensible."""

    clip: str | None = None
    backbone: str | None = None
    layer: int | None = None
    sigma: float | None = None


def parse(query: Mapping[str, str]) -> Cell:
    """The cell that a query string asks for. Nonsense is ignored: a link must never break a page.

    Args:
        query: the parameters `clip`, `backbone`, `layer`, `sigma`, each optional.
    """
    layer: int | None
    sigma: float | None
    try:
        layer = int(query["layer"])
    except (KeyError, ValueError):
        layer = None
    try:
        sigma = float(query["sigma"])
    except (KeyError, ValueError):
        sigma = None
    if sigma is not None and not 0.0 <= sigma <= 1.0:
        sigma = None
    return Cell(query.get("clip") or None, query.get("backbone") or None, layer, sigma)


def query(cell: Cell) -> str:
    """The query string of a cell, "?clip=…&backbone=…&layer=…&sigma=…", without unknown parts."""
    parts = {
        "clip": cell.clip,
        "backbone": cell.backbone,
        "layer": cell.layer,
        "sigma": None if cell.sigma is None else f"{cell.sigma:.2f}",
    }
    return "?" + urlencode({name: value for name, value in parts.items() if value is not None})
