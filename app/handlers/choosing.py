"""Choosing what to look at: the clip, its window, the backbone, the cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app import cell, gallery, map_panel, window
from app._gradio import gr
from app.choice import Choice, stale
from app.handlers.shared import Update
from app.progress import Progress
from app.state import Session, Source
from app.window import Window
from explorer import references
from explorer.backbones import registry
from explorer.clip import inspect_video, load_clip
from explorer.errors import EmergeError
from explorer.look import NO_REFERENCE


class Choosing:
    """Each choice updates the controls that depend on it."""

    def clip_chosen(self, session: Session, backbone: str, event: gr.SelectData) -> Update:
        """A shipped clip was clicked."""
        shipped = gallery.shipped()
        index = int(event.index)
        own = session.source is not None and not session.source.shipped
        if 0 <= index < len(shipped):
            session.source = shipped[index]
        update = self.window_of(session, backbone)
        # A shipped clip after another keeps the reference that was chosen for it.
        return {**update, "reference": reference_of(session.source)} if own else update

    def uploaded(self, session: Session, backbone: str, file: str) -> Update:
        """A video was uploaded; what cannot be used leaves the chosen clip as it was."""
        path = Path(file)
        try:
            source = Source(path, path.name, inspect_video(path), shipped=False)
            reference = reference_of(source)
        except EmergeError as error:
            return {"status": Progress().html(str(error), kind="failed")}
        session.source = source
        return {
            **self.window_of(session, backbone),
            "reference": reference,
            "gallery": marked(source),
            "status": Progress().html(f"{path.name} is here: press Run.", kind="idle"),
        }

    def window_of(self, session: Session, backbone: str) -> Update:
        """The window's controls for the session's video and backbone, with what is suggested."""
        source = session.source
        if source is None:
            return {"preview": window.preview(None, Window(0, 1, 1))}
        card = registry.card(backbone)
        frames = source.info.frames
        chosen = window.suggested(source, card)
        return {
            "start": gr.update(maximum=max(frames - 1, 1), value=chosen.start),
            "stride": gr.update(value=chosen.stride),
            "count": gr.update(choices=window.counts(card, frames), value=chosen.count),
            "preview": window.preview(source, chosen),
        }

    def window_moved(self, session: Session, start: float, stride: float, count: int) -> Update:
        """A control of the window was moved."""
        return {"preview": window.preview(session.source, Window(int(start), int(stride), count))}

    def controls_moved(
        self,
        session: Session,
        start: float | None,
        stride: float | None,
        count: int | None,
        backbone: str,
        layer: float | None,
        sigma: float | None,
        reference: str,
        judge: str = NO_REFERENCE,
    ) -> Update:
        """Any control was moved: says so where the results on the page are of another choice."""
        if start is None or stride is None or count is None or layer is None or sigma is None:
            return {}  # a number's box is being emptied
        session.controls = Choice(
            session.source,
            Window(int(start), int(stride), int(count)),
            backbone,
            int(layer),
            round(float(sigma), 2),
            reference,
            judge,
        )
        return {"stale": stale(session.shown, session.controls)}

    def backbone_chosen(
        self, session: Session, backbone: str, start: float, stride: float, count: int
    ) -> Update:
        """Another backbone: as many frames of the window as it takes.

        What can stay is not sent: it may have been moved since. The cell is not either, the page
        has set it by itself (`app.controls`).
        """
        source = session.source
        if source is None:
            return {}
        card = registry.card(backbone)
        current = Window(int(start), int(stride), int(count))
        chosen = window.kept(source, card, current)
        choices = window.counts(card, source.info.frames)
        if chosen == current:
            return {"count": gr.update(choices=choices)}
        update: Update = {
            "count": gr.update(choices=choices, value=chosen.count),
            "preview": window.preview(source, chosen),
        }
        if (chosen.start, chosen.stride) != (current.start, current.stride):
            update |= {"start": chosen.start, "stride": chosen.stride}
        return update

    def cell_moved(self, backbone: str, layer: float, sigma: float, metric: str) -> Update:
        """Another layer, sigma, backbone or metric of the map."""
        chosen, noise = int(layer), round(float(sigma), 2)
        return {
            "cell": cell.note(backbone, chosen, noise),
            "map": map_panel.value(backbone, metric, layer=chosen, sigma=noise),
        }

    def cell_clicked(self, event: gr.EventData) -> Update:
        """A cell of the map was clicked; running it follows."""
        return {"layer": int(event.layer), "sigma": float(event.sigma)}


def reference_of(source: Source | None) -> str:
    """What a video can be compared with: who knows it, else who can estimate it, or "none".

    Raises:
        ClipError: the video cannot be decoded.
    """
    if source is None or source.shipped:
        return "exact"
    # A shipped clip that somebody uploads has its geometry here all the same.
    clip = load_clip(source.path, start=0, stride=1, count=1)
    return references.suggest(clip) or NO_REFERENCE


def marked(source: Source | None) -> Any:
    """The gallery with this clip marked, or none."""
    # A choice alone cannot be taken back: Gradio leaves out what is None.
    return gr.update(value=gallery.pictures(), selected_index=gallery.position(source))
