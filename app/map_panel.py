"""The layer x sigma map: held-out scores of the probes, one clickable cell each."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from app._gradio import gr
from app.metrics_panel import COLUMNS
from explorer.backbones import registry
from explorer.figures import layer_sigma_map
from explorer.held_out import metrics_of
from explorer.probe.checkpoint import list_probes

MAP_JS = (Path(__file__).parent / "static" / "map.js").read_text(encoding="utf-8")
TEMPLATE = "<p class='map-note'></p><div class='map-plot' role='application'></div>"


def component(value: str) -> gr.HTML:
    """The map; its `cell` event carries `layer` and `sigma`."""
    return gr.HTML(value, html_template=TEMPLATE, js_on_load=MAP_JS, elem_id="map")


def metrics() -> list[tuple[str, str]]:
    """(label, key) of the metrics that the map can show."""
    return [(f"{column.title} {column.better}", column.key) for column in COLUMNS]


def value(backbone: str, metric: str, *, layer: int, sigma: float) -> str:
    """What the map draws, as JSON: a Plotly figure of the probes' scores and a line about it."""
    cards = list_probes(backbone)
    column = next(column for column in COLUMNS if column.key == metric)
    scores = {(card.layer, card.sigma): _score(metrics_of(card).get(metric)) for card in cards}
    note = f"Held-out mean of the {column.title}: {column.hint}. Click a cell to run it."
    untrained = sum(not card.trained for card in cards)
    if not cards:
        title = registry.card(backbone).title
        note = f"No probe has been trained for {title} yet, so its map is empty."
    elif untrained:
        note += f" {untrained} of {len(cards)} probes are untrained."
    chosen = (layer, sigma) if (layer, sigma) in scores else None
    figure = layer_sigma_map(scores, current=chosen, title=f"{column.title} {column.better}")
    return json.dumps(
        {
            "note": note,
            "figure": figure if cards else None,
            "lowIsBetter": column.better == "↓",
            "digits": column.digits,
        }
    )


def _score(found: Any) -> float | None:
    number = found.get("mean") if isinstance(found, dict) else found
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return None
    return float(number) if math.isfinite(number) else None
