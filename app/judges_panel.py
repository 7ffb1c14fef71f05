"""How far the reference of a look can be trusted: with itself, and with a second judge."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from app.looks import Look
from explorer.references.consistency import LOW

CONSISTENCY = (
    "share of a frame's pixels that land on the same surface in other frames, by the reference's "
    "own depth and cameras; what moves does not, and what is hidden is not counted"
)
DISPUTED = "share of the frame's pixels that the second judge places elsewhere"


def warning(look: Look) -> str:
    """A line where the reference contradicts itself; empty where it does not."""
    found = (look.summary or {}).get("reference_consistency")
    if not found or not found.get("low"):
        return ""
    return (
        f"<p class='warn' role='status'>The reference agrees with itself on only "
        f"<b>{_percent(found.get('mean'))}</b> of the pixels that several frames see (a static "
        f"scene: {LOW:.0%} or more). Something moves in this clip, or the reference is wrong: "
        "errors against it mean little there.</p>"
    )


def lines(look: Look) -> list[str]:
    """Sentences on consistency and agreement, where they are known."""
    summary = look.summary or {}
    said = []
    found = summary.get("reference_consistency")
    if found and not found.get("low") and found.get("mean") is not None:
        said.append(
            f"The reference agrees with itself on {_percent(found['mean'])} of the pixels that "
            "several frames see."
        )
    agreed = summary.get("agreement")
    if agreed:
        said.append(
            f"{agreed['judge']} disputes {_percent(agreed['share'])} of the {agreed['pixels']:,} "
            "compared pixels that it knows too: it places them more than "
            f"{agreed['threshold']:.2f} off, after the alignment that fits the others."
        )
        if agreed["auc30"] is not None:  # one frame alone has no pair of cameras
            said[-1] += (
                f" Their cameras agree to an AUC@30 of {agreed['auc30']:.2f} (1 is perfect)."
            )
    if look.judge_note:
        said.append(f"{look.judge_note[0].upper()}{look.judge_note[1:]}.")
    return said


def frames(look: Look) -> str:
    """Each frame's error as a bar on one scale, the reference's consistency, what is disputed."""
    if look.report is None or not look.report.per_frame:
        return ""
    summary = look.summary or {}
    itself = _by_frame(summary.get("reference_consistency"), "consistency")
    disputed = _by_frame(summary.get("agreement"), "share")
    errors = [float(entry["point_error"]) for entry in look.report.per_frame]
    top = max(filter(math.isfinite, errors), default=0.0) or 1.0
    rows = []
    for entry, error in zip(look.report.per_frame, errors, strict=True):
        if math.isfinite(error):
            frame = int(entry["frame"])
            more = f"<td>{_percent(itself.get(frame))}</td>" if itself else ""
            more += f"<td>{_percent(disputed.get(frame))}</td>" if disputed else ""
            rows.append(
                f"<tr><th scope='row'>frame {frame}</th><td class='bar'>"
                f"<i style='width:{100 * error / top:.0f}%'></i></td><td><b>{error:.3f}</b></td>"
                f"{more}</tr>"
            )
    heads = "<th></th><th></th><th>point error</th>"
    heads += f"<th title='{escape(CONSISTENCY)}'>reference with itself</th>" if itself else ""
    heads += f"<th title='{escape(DISPUTED)}'>disputed</th>" if disputed else ""
    return (
        "<h4>Each frame (unit as above)</h4><table class='frames'>"
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def terms(look: Look) -> list[str]:
    """What the words mean, as list items."""
    summary = look.summary or {}
    items = []
    if summary.get("reference_consistency"):
        items.append(f"<li><b>reference with itself</b> {escape(CONSISTENCY)}</li>")
    if summary.get("agreement"):
        items.append(
            "<li><b>disputed</b> pixels that the second judge places elsewhere; lilac in the "
            "error map, and left out of the row “without disputed pixels”</li>"
        )
    return items


def _by_frame(found: dict[str, Any] | None, key: str) -> dict[int, float | None]:
    return {int(row["frame"]): row[key] for row in (found or {}).get("per_frame", [])}


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"
