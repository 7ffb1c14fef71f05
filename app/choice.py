"""What the controls say (`Choice`), and the line that tells when it is not what the page shows."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from app.state import Source
from app.window import Window


@dataclass(frozen=True)
class Choice:
    """Some frames of a video, one cell of a backbone, and what to compare with."""

    source: Source | None
    window: Window
    backbone: str
    layer: int
    sigma: float
    reference: str
    judge: str = "none"

    def words(self) -> str:
        """Clip and cell, e.g. "room orbit 01, toy-wan, layer 5, sigma 0.30"."""
        name = self.source.name if self.source else "no video"
        return f"{name}, {self.backbone}, layer {self.layer}, sigma {self.sigma:.2f}"


def stale(shown: Choice | None, now: Choice | None) -> str:
    """A line for results that are not of the cell that the controls say; empty where they agree.

    Args:
        shown: what the results on the page are of; None before the first run.
        now: what the controls say; None before any was moved.
    """
    if shown is None or now is None or shown == now:
        return ""
    return (
        f"<p class='stale' role='status'>Shown: {escape(shown.words())}. The controls now say "
        f"<b>{escape(', '.join(_changes(shown, now)))}</b>: press Run.</p>"
    )


def _changes(shown: Choice, now: Choice) -> list[str]:
    changed = []
    if now.source != shown.source:
        changed.append(now.source.name if now.source else "no video")
    elif now.window != shown.window:
        window = now.window
        changed.append(f"frames {window.start} to {window.last}, {window.count} of them")
    if now.backbone != shown.backbone:
        changed.append(now.backbone)
    if now.layer != shown.layer:
        changed.append(f"layer {now.layer}")
    if now.sigma != shown.sigma:
        changed.append(f"sigma {now.sigma:.2f}")
    if now.reference != shown.reference:
        changed.append(f"reference {now.reference}")
    if now.judge != shown.judge:
        changed.append(f"second judge {now.judge}")
    return changed
