"""The metrics pane: this look beside what the same probe and the controls' probes do on average."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Any

from app import judges_panel
from app.looks import Look
from explorer.backbones import registry
from explorer.held_out import baselines, metrics_of, older_world
from explorer.look import NO_REFERENCE
from explorer.probe.checkpoint import ProbeCard, find_probe, list_probes

EMPTY = (
    "<div class='pane empty'>After a run: its errors, beside the averages of this probe and of the "
    "controls on clips that no probe has seen.</div>"
)
ABOUT = {
    "mean": "held-out mean",
    "control": "control, held-out mean",
    "constant": "no features, held-out mean",
    "judges": "no prediction in it: what judges make of each other",
}
CONTROL = (
    "a probe trained alike on no trained video model: on its untrained copy, its input or plain "
    "pixels; what the model has learned shows only beyond these"
)
OLDER = (
    "Held-out figures were measured on rendered scenes of an earlier version of the world than the "
    "present one."
)
MEAN = "training mean per pixel"
CONSTANT = "one constant reconstruction for every clip: the mean of the training scenes"
STILL = (
    "nothing moves: the correspondence error of answering, without any features, that every point "
    "stays where it is in the picture. Features that follow the points are below it."
)


@dataclass(frozen=True)
class Column:
    """One metric: its key in summaries and cards, how it is written, which way is better."""

    key: str
    title: str
    digits: int
    better: str
    hint: str


COLUMNS = (
    Column(
        "point_error",
        "point error",
        3,
        "↓",
        "mean distance of the points after one rotation, translation and scale for the whole clip; "
        "unit: mean distance of frame 0's points from its camera",
    ),
    Column(
        "depth_error",
        "depth error",
        3,
        "↓",
        "mean absolute difference of the depths after one scale for the whole clip, in the same "
        "unit",
    ),
    Column(
        "auc5",
        "AUC@5",
        3,
        "↑",
        "camera poses: area under the recall curve up to an error of 5 degrees, 1 is perfect",
    ),
    Column("auc30", "AUC@30", 3, "↑", "the same up to 30 degrees"),
    Column(
        "correspondence_error_px",
        "correspondence error, px",
        1,
        "↓",
        "mean distance of the best match from the true one, in pixels of the picture",
    ),
    Column(
        "pck",
        "PCK",
        2,
        "↑",
        "percentage of correct keypoints: share of best matches within 10 % of the picture's "
        "longer side from the true one",
    ),
)


def show(look: Look) -> str:
    """The pane for one look; columns without a value show a dash."""
    if look.summary is None or look.features is None:
        return EMPTY
    features = look.features
    notes = [look.reason] if look.reason else []
    if look.reference is None:
        asked = look.request.reference != NO_REFERENCE
        why = (look.note or "").removeprefix("no reference: ")
        known = f": {why}" if why and asked else ""
        notes.append(f"There is no reference, and errors need one{known}.")
    elif look.note:
        notes.append(look.note)
    notes += judges_panel.lines(look)
    own = find_probe(features.backbone, features.layer, features.sigma)
    rows = [_row("this look", look.summary, kind="this", still=_still(look.summary))]
    rest, agreed = look.summary.get("undisputed"), look.summary.get("agreement")
    if rest:
        rows.append(_row("this look without disputed pixels", rest, kind="rest"))
    if own is not None:
        rows.append(_row(_cell(own), metrics_of(own), trained=own.trained))
    for card in registry.cards():
        if card.kind == "control" and card.id != features.backbone:
            control = _nearest(card.id, features.layer, features.sigma)
            if control is not None:
                label = _cell(control)
                figures = metrics_of(control)
                rows.append(_row(label, figures, kind="control", trained=control.trained))
    rows += [_row(name, figures, kind="constant") for name, figures in baselines().items()]
    if agreed:
        label = f"{_reference(look)} against {agreed['judge']}"
        rows.append(_row(label, agreed, kind="judges"))
    heads = "".join(
        f"<th title='{escape(column.hint)}'>{escape(column.title)}&nbsp;{column.better}</th>"
        for column in COLUMNS
    )
    note = "".join(f"<p class='note'>{escape(text)}</p>" for text in notes)
    table = (
        f"<table class='metrics'><thead><tr><th></th>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    parts = (judges_panel.warning(look), note, table, judges_panel.frames(look))
    return f"<div class='pane'>{''.join(parts)}{_legend(look, rows)}</div>"


def _legend(look: Look, rows: list[str]) -> str:
    """What the table says, for readers who meet these names for the first time."""
    items = [f"<li><b>{column.title}</b> {escape(column.hint)}</li>" for column in COLUMNS]
    if MEAN in baselines():
        items.append(f"<li><b>{MEAN}</b> {CONSTANT}</li>")
    if _still(look.summary or {}) is not None or "nothing moves" in baselines():
        name, _, meaning = STILL.partition(": ")
        items.append(f"<li><b>{name}</b> {meaning}</li>")
    if any("<small>[" in row for row in rows):
        older = f". {OLDER}" if older_world() else ""
        items.append(
            "<li><b>held-out mean</b> mean over the test clips, in brackets its 95 % interval"
            f"{older}</li>"
        )
    if any("control, " in row for row in rows):
        items.append(f"<li><b>control</b> {CONTROL}</li>")
    items += judges_panel.terms(look)
    return f"<ul class='terms'>{''.join(items)}</ul>"


def _reference(look: Look) -> str:
    """Id of the reference, or of whom it asked in turn."""
    found = (look.summary or {}).get("provenance", {}).get("reference") or {}
    return str(found.get("judge", look.request.reference))


def _still(summary: dict[str, Any]) -> float | None:
    """The correspondence error of answering that nothing moves on this clip, where it is known."""
    return (summary.get("correspondence") or {}).get("nothing_moves_px")


def _cell(card: ProbeCard) -> str:
    return f"{card.backbone}, layer {card.layer}, sigma {card.sigma:.2f}"


def _nearest(backbone: str, layer: int, sigma: float) -> ProbeCard | None:
    """The control's probe for the same cell, else the one closest to it."""
    cards = list_probes(backbone)
    return min(
        cards, key=lambda card: (abs(card.layer - layer), abs(card.sigma - sigma)), default=None
    )


def _row(
    label: str,
    values: dict[str, Any],
    *,
    kind: str = "mean",
    trained: bool = True,
    still: float | None = None,
) -> str:
    mark = "" if trained else " <em class='untrained'>untrained</em>"
    cells = ""
    for column in COLUMNS:
        beside = ""
        if column.key == "correspondence_error_px" and still is not None:
            beside = f" <small title='{STILL}'>nothing moves: {_number(still, column)}</small>"
        cells += f"<td>{_value(values.get(column.key), column)}{beside}</td>"
    about = f"<small>{ABOUT[kind]}</small>" if kind in ABOUT else ""
    return f"<tr class='{kind}'><th scope='row'>{escape(label)}{mark}{about}</th>{cells}</tr>"


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
