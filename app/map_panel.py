"""The layer x sigma map: held-out scores of the probes, one clickable cell each."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app._gradio import gr
from app.metrics_panel import COLUMNS, OLDER, Column
from explorer.backbones import registry
from explorer.errors import ProbeError
from explorer.evaluate.table import best_cell
from explorer.figures import layer_sigma_map
from explorer.held_out import baselines, differences_from_best, metrics_of, older_world
from explorer.probe.checkpoint import ProbeCard, list_probes

ONCE = "Each probe was trained once: what another training would change is not in it."
MAP_JS = (Path(__file__).parent / "static" / "map.js").read_text(encoding="utf-8")
TEMPLATE = (
    "<p class='map-note'></p><div class='map-plot' role='img'></div><ul class='map-facts'></ul>"
)


def component(value: str) -> gr.HTML:
    """The map; its `cell` event carries `layer` and `sigma`."""
    return gr.HTML(value, html_template=TEMPLATE, js_on_load=MAP_JS, elem_id="map")


def metrics() -> list[tuple[str, str]]:
    """(label, key) of the metrics that the map can show."""
    return [(f"{column.title} {column.better}", column.key) for column in COLUMNS]


def value(backbone: str, metric: str, *, layer: int, sigma: float) -> str:
    """What the map draws, as JSON: a Plotly figure of the probes' scores and lines about it."""
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
    level, details, facts = _compared(cards, column)
    controls = _controls(backbone, column)
    figure = layer_sigma_map(
        scores,
        current=chosen,
        title=f"{column.title} {column.better}",
        digits=column.digits,
        marked=level,
        details=details,
        others=controls if any(score is not None for score in scores.values()) else None,
    )
    if cards:
        facts += [*_beside(controls, column), *([OLDER] if older_world() else [])]
    return json.dumps(
        {
            "note": note,
            "label": f"Heatmap of the {column.title} by layer and sigma of {backbone}. The sliders "
            "Layer and Noise choose the same cells.",
            "facts": facts,
            "figure": figure if cards else None,
            "lowIsBetter": column.better == "↓",
        }
    )


def _compared(
    cards: Sequence[ProbeCard], column: Column
) -> tuple[set[tuple[int, float]], dict[tuple[int, float], str], list[str]]:
    """(cells level with the best, what to say about each cell, lines about all of them)."""
    details = {
        (card.layer, card.sigma): _interval(metrics_of(card).get(column.key), column.digits)
        for card in cards
    }
    found = differences_from_best(cards, column.key)
    if found is None:
        return set(), details, []
    best, others = found
    for cell, each in others.items():
        ends = f"{each.low:+.{column.digits}f}, {each.high:+.{column.digits}f}"
        details[cell] += f"<br>minus the best: {each.mean:+.{column.digits}f} [{ends}]"
    level = {cell for cell, each in others.items() if not each.excludes_zero}
    name = f"layer {best.layer}, sigma {best.sigma:.2f}"
    clips = next(iter(others.values())).count
    first = f"{_extreme(column)} mean on the test clips: {name}"
    if level:
        said = (
            f"{first}. ≈ marks {len(level)} of the {len(others)} others that are level with "
            f"it: the 95 % interval of their difference on the same {clips} clips has zero in it. "
            f"{ONCE}"
        )
    else:
        said = (
            f"{first}, ahead of all others: no 95 % interval of a difference on the same "
            f"{clips} clips has zero in it. {ONCE}"
        )
    return level, details, [said, *_chosen(cards)]


def _extreme(column: Column) -> str:
    return "Lowest" if column.better == "↓" else "Highest"


def _chosen(cards: Sequence[ProbeCard]) -> list[str]:
    """A line on the cell that tables compare, which test clips had no say in."""
    try:
        found = best_cell(cards)
    except ProbeError:
        return []
    name = f"layer {found.layer}, sigma {found.sigma:.2f}"
    return [f"Chosen on validation clips, which is what tables of best cells compare: {name}."]


def _interval(found: Any, digits: int) -> str:
    """The ends of a mean's interval in brackets; nothing where they are not known."""
    if not isinstance(found, dict) or _score(found.get("low")) is None:
        return ""
    return f" [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def _controls(backbone: str, column: Column) -> dict[str, float]:
    """The best held-out mean of each control, by its name."""
    choose = min if column.better == "↓" else max
    found = {}
    for card in registry.cards():
        if card.kind == "control" and card.id != backbone:
            known = [_score(metrics_of(each).get(column.key)) for each in list_probes(card.id)]
            means = [mean for mean in known if mean is not None]
            if means:
                found[card.id] = choose(means)
    return found


def _beside(controls: dict[str, float], column: Column) -> list[str]:
    """Lines with the controls and with what needs no probe."""
    ordered = sorted(controls.items(), key=lambda pair: pair[1], reverse=column.better == "↑")
    named = [f"{name} {mean:.{column.digits}f}" for name, mean in ordered]
    where = f"each at its cell of the {_extreme(column).lower()} mean"
    lines = [f"Controls, {where}: {', '.join(named)}."] if named else []
    still = [f"{name} {mean:.{column.digits}f}" for name, mean in _constant(column)]
    return lines + ([f"Without any features: {', '.join(still)}."] if still else [])


def _constant(column: Column) -> Iterator[tuple[str, float]]:
    for name, found in baselines().items():
        mean = _score(found.get(column.key))
        if mean is not None:
            yield name, mean


def _score(found: Any) -> float | None:
    number = found.get("mean") if isinstance(found, dict) else found
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return None
    return float(number) if math.isfinite(number) else None
