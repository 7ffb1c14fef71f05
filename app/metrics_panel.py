"""The metrics pane: this look beside what the same probe and the controls' probes do on average."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Any

from app.looks import Look
from explorer.backbones import registry
from explorer.held_out import metrics_of
from explorer.probe.checkpoint import ProbeCard, find_probe, list_probes

EMPTY = "<div class='pane empty'>Metrics of the look appear here.</div>"


@dataclass(frozen=True)
class Column:
    """One metric: its key in summaries and cards, how it is written, which way is better."""

    key: str
    title: str
    digits: int
    better: str
    hint: str


COLUMNS = (
    Column("point_error", "point error", 3, "↓", "mean distance after Sim(3) alignment"),
    Column("depth_error", "depth error", 3, "↓", "mean absolute difference after median scaling"),
    Column("auc5", "AUC@5", 3, "↑", "camera poses, area under the recall curve up to 5 degrees"),
    Column("auc30", "AUC@30", 3, "↑", "the same up to 30 degrees"),
    Column("correspondence_error_px", "match error, px", 1, "↓", "best match from the true one"),
    Column("pck", "PCK", 2, "↑", "share of matches within 10 % of the longer side"),
)


def show(look: Look) -> str:
    """The pane for one look; columns without a value show a dash."""
    if look.summary is None or look.features is None:
        return EMPTY
    features = look.features
    notes = [note for note in (look.reason, look.note) if note]
    if look.reference is None and not any("reference" in note for note in notes):
        notes.append("No reference for this video: metrics need one.")
    own = find_probe(features.backbone, features.layer, features.sigma)
    rows = [_row("this look", look.summary, kind="this")]
    if own is not None:
        rows.append(_row(f"{_cell(own)}, held-out mean", metrics_of(own), trained=own.trained))
    for card in registry.cards():
        if card.kind == "control" and card.id != features.backbone:
            control = _nearest(card.id, features.layer, features.sigma)
            if control is not None:
                label = f"{_cell(control)}, held-out mean"
                figures = metrics_of(control)
                rows.append(_row(label, figures, kind="control", trained=control.trained))
    heads = "".join(
        f"<th title='{escape(column.hint)}'>{escape(column.title)} {column.better}</th>"
        for column in COLUMNS
    )
    note = "".join(f"<p class='note'>{escape(text)}</p>" for text in notes)
    return (
        f"<div class='pane'>{note}<table class='metrics'><thead><tr><th></th>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>{_legend(rows)}{_frames(look)}</div>"
    )


def _legend(rows: list[str]) -> str:
    if not any("<small>" in row for row in rows):
        return ""
    return "<p class='note'>Means over the test clips, in brackets their 95 % intervals.</p>"


def _cell(card: ProbeCard) -> str:
    return f"{card.backbone}, layer {card.layer}, sigma {card.sigma:.2f}"


def _nearest(backbone: str, layer: int, sigma: float) -> ProbeCard | None:
    """The control's probe for the same cell, else the one closest to it."""
    cards = list_probes(backbone)
    return min(
        cards, key=lambda card: (abs(card.layer - layer), abs(card.sigma - sigma)), default=None
    )


def _row(label: str, values: dict[str, Any], *, kind: str = "mean", trained: bool = True) -> str:
    mark = "" if trained else " <em class='untrained'>untrained</em>"
    cells = "".join(f"<td>{_value(values.get(column.key), column)}</td>" for column in COLUMNS)
    return f"<tr class='{kind}'><th scope='row'>{escape(label)}{mark}</th>{cells}</tr>"


def _value(found: Any, column: Column) -> str:
    """A number, or a mean with its interval; a dash where nothing is known."""
    if isinstance(found, dict):
        mean = _number(found.get("mean"), column)
        low, high = _number(found.get("low"), column), _number(found.get("high"), column)
        if low == "–" or high == "–":
            return mean
        return f"{mean} <small>[{low}, {high}]</small>"
    return _number(found, column)


def _number(value: Any, column: Column) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return "–"
    return f"{value:.{column.digits}f}"


def _frames(look: Look) -> str:
    """Errors of each frame as bars on one scale."""
    if look.report is None or not look.report.per_frame:
        return ""
    top = max(float(entry["point_error"]) for entry in look.report.per_frame) or 1.0
    bars = "".join(
        f"<li><span>frame {int(entry['frame'])}</span>"
        f"<i style='width:{100 * float(entry['point_error']) / top:.0f}%'></i>"
        f"<b>{float(entry['point_error']):.3f}</b></li>"
        for entry in look.report.per_frame
        if math.isfinite(float(entry["point_error"]))
    )
    return f"<h4>Point error of each frame</h4><ol class='bars'>{bars}</ol>"
