"""`emerge3d backbones`: what models there are, what they need, and how to get them."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from explorer.errors import BackboneError

if TYPE_CHECKING:
    from explorer.backbones.base import BackboneCard

SIGMAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Backbones:
    """List the backbones, or describe one."""

    id: Annotated[str | None, tyro.conf.Positional] = None
    """Describe this one only."""
    weights: Path | None = None
    """Describe the weights in this folder."""
    download: bool = False
    """Fetch its published weights into the Hugging Face cache."""
    json: bool = False
    """Print one JSON object on stdout."""

    def run(self) -> int:
        """Print cards, the cells that have a probe, and the noise table of one backbone.

        Raises:
            BackboneError: unknown id, or the weights cannot be fetched.
        """
        from explorer.backbones import _weights, registry
        from explorer.backbones._options import Target
        from explorer.commands import _backbone_page

        if self.id is None:
            if self.download or self.weights is not None:
                raise BackboneError("say which backbone: emerge3d backbones ID")
            found = [describe(card) for card in registry.cards()]
            print(json.dumps({"backbones": found}, allow_nan=False) if self.json else table(found))
            return 0
        card = registry.card(self.id, weights=self.weights)
        if self.download:
            folder = _weights.download(card)
            registry.fitting_card(card.id, Target())  # without network a part of it may be all
            print(f"{card.id} is in {folder}", file=sys.stderr)
        facts, noise = describe(card), noise_table(card)
        if self.json:
            print(json.dumps({**facts, "noise": noise}, allow_nan=False))
        else:
            print(_backbone_page.page(card, noise, facts["probes"]))
        return 0


def describe(card: BackboneCard) -> dict[str, Any]:
    """Facts of a card, whether it can run here, and its (layer, sigma) cells with a probe."""
    from explorer import plugins
    from explorer.backbones import registry
    from explorer.probe.checkpoint import list_probes

    cells = sorted({(probe.layer, probe.sigma) for probe in list_probes(card.id)})
    facts = asdict(card)
    source = card.source
    facts["source"] = None if source is None else source.repo
    facts["download_bytes"] = 0 if source is None else source.download_bytes
    facts["gated"] = source is not None and source.gated
    facts["here"] = registry.is_here(card.id)
    said = plugins.provenance("backbone", card.id)
    return {**facts, **said, "probes": [list(cell) for cell in cells]}


def noise_table(card: BackboneCard) -> list[dict[str, float | int]]:
    """Sigma, the model's timestep and the official index; empty where there is no noise."""
    from explorer.backbones import registry

    if not card.uses_sigma:
        return []
    levels = [registry.noise_level(card.id, sigma) for sigma in SIGMAS]
    return [
        {"sigma": level.sigma, "timestep": level.timestep, "official_index": level.official_index}
        for level in levels
        if level is not None
    ]


def table(found: list[dict[str, Any]]) -> str:
    """One line for each backbone."""
    heads = (
        *("id", "kind", "parameters", "layers", "input", "tokens", "frames", "cell", "memory"),
        *("download", "here", "licence"),
    )
    rows = [heads, *(_row(facts) for facts in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = ("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    rows, columns = facts["token_grid"]
    height, width = facts["input_size"]
    layer, sigma = facts["default_cell"]
    licence = re.split(r" \(|;", facts["licence"])[0]
    gated = " (gated)" if facts["gated"] else ""
    return (
        facts["id"],
        facts["kind"],
        _count(facts["parameters"]),
        str(facts["layers"]),
        f"{height}x{width}",
        f"{rows}x{columns}x{facts['width']}",
        str(facts["max_frames"]),
        f"{layer} @ {sigma:g}" if facts["uses_sigma"] else str(layer),
        _bytes(facts["memory_bytes"]),
        f"{_bytes(facts['download_bytes'])}{gated}" if facts["source"] else "-",
        "yes" if facts["here"] else "no",
        licence + (" ..." if licence != facts["licence"] else ""),
    )


def _bytes(count: int) -> str:
    from explorer.backbones._weights import size_text

    return size_text(count) if count else "-"


def _count(parameters: int) -> str:
    if not parameters:
        return "-"
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"
