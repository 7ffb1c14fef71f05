"""What happens when something on the page is used: which handler, with what, and where it shows."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from app import controls
from app._gradio import gr
from app.binding import bound
from app.handlers import Handlers
from app.streams import drop_ended

QUIET: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "concurrency_limit": None,
}
LATEST = {**QUIET, "trigger_mode": "always_last"}
EACH = {**QUIET, "trigger_mode": "multiple"}

WINDOW = ("start", "stride", "count", "preview")
CELL = ("about", "layer", "sigma", "cell")
CHOICE = ("start", "stride", "count", "backbone", "layer", "sigma", "reference", "judge")
SHOWN = (
    *("viewer", "legend", "status", "stale", "stop", "intro", "film", "metrics"),
    *("log", "link", "make_rrd", "make_json"),
)
"""What a run changes."""

# A DownloadButton whose click makes the file does not download at the first click: a plain button
# makes it, and this clicks the hidden one once its address has arrived.
DOWNLOAD_JS = """() => setTimeout(() => {
  const made = document.querySelector('#{id}');
  (made.matches('a, button') ? made : made.querySelector('a, button')).click();
}, 150)"""


class Events:
    """The events of a page that is being built.

    Args:
        page: which.
        parts: its components by name.
        session: the state of a visitor.
        handlers: what is done.
    """

    def __init__(
        self, page: gr.Blocks, parts: Mapping[str, Any], session: Any, handlers: Handlers
    ) -> None:
        self._page, self._parts, self._session = page, parts, session
        self._handlers = handlers

    def connect(self) -> None:
        """Connect all of them."""
        self._visits()
        self._choosing()
        self._running()
        self._picking()
        self._exporting()

    def _of(self, *names: str) -> list[Any]:
        """Inputs: the session, and what controls say."""
        return [self._session, *self._to(*names)]

    def _to(self, *names: str) -> list[Any]:
        return [self._parts[name] for name in names]

    def _visits(self) -> None:
        self._set_ranges(self._page.load)
        opened = self._page.load(
            bound(self._handlers.visits.opened, self._parts),
            self._of(),
            self._to("gallery", "backbone", *WINDOW, *CELL),
            **QUIET,
        )
        self._set_ranges(opened.then)
        self._page.unload(self._handlers.visits.closed)

    def _set_ranges(self, event: Any) -> None:
        js = controls.ranges_js()
        event(None, self._to("backbone"), self._to("layer", "sigma"), js=js, **QUIET)

    def _choosing(self) -> None:
        parts, choosing = self._parts, self._handlers.choosing
        clip_chosen = parts["gallery"].select(
            bound(choosing.clip_chosen, parts),
            self._of("backbone"),
            self._to("reference", *WINDOW),
            **LATEST,
        )
        uploaded = parts["upload"].upload(
            bound(choosing.uploaded, parts),
            self._of("backbone", "upload"),
            self._to("gallery", "status", "reference", *WINDOW),
            **LATEST,
        )
        gr.on(
            [parts[name].input for name in ("start", "stride", "count")],
            bound(choosing.window_moved, parts),
            self._of("start", "stride", "count"),
            self._to("preview"),
            **LATEST,
        )
        parts["backbone"].input(
            None,
            self._to("backbone", "about"),
            self._to("about", "layer", "sigma"),
            js=controls.chosen_js(),
            **QUIET,
        )
        backbone_chosen = parts["backbone"].input(
            bound(choosing.backbone_chosen, parts),
            self._of("backbone", "start", "stride", "count"),
            self._to(*WINDOW),
            **LATEST,
        )
        gr.on(
            [parts[name].change for name in ("backbone", "layer", "sigma", "metric")],
            bound(choosing.cell_moved, parts),
            self._to("backbone", "layer", "sigma", "metric"),
            self._to("cell", "map"),
            **LATEST,
        )
        # Not `change`: what handlers set arrives one control after the other, and in between a
        # number may be outside of the range that goes with the others. One event for all of them:
        # a second one waits for the first, and the last word is the newest.
        moved = [parts[name].input for name in CHOICE if name != "backbone"]
        for event in (
            functools.partial(gr.on, moved),
            *(chosen.then for chosen in (clip_chosen, uploaded, backbone_chosen)),
        ):
            event(
                bound(choosing.controls_moved, parts),
                self._of(*CHOICE),
                self._to("stale"),
                **LATEST,
            )

    def _running(self) -> None:
        parts, running = self._parts, self._handlers.running
        self._run_after(parts["run"].click)
        clicked = parts["map"].cell(
            bound(self._handlers.choosing.cell_clicked, parts),
            None,
            self._to("layer", "sigma"),
            **QUIET,
        )
        self._run_after(clicked.then)
        parts["stop"].click(bound(running.stop, parts), self._of(), self._to("stop"), **EACH)

    def _run_after(self, event: Any) -> None:
        page = self._page

        def forget_streams(request: gr.Request) -> None:
            drop_ended(page, str(request.session_hash))

        event(forget_streams, None, None, **EACH).then(
            bound(self._handlers.running.run, self._parts),
            self._of(*CHOICE),
            self._to(*SHOWN),
            **EACH,
        )

    def _picking(self) -> None:
        parts, picking = self._parts, self._handlers.picking
        film = self._to("film")
        parts["film"].pick(bound(picking.picked, parts), self._of(), film, **LATEST)
        parts["viewer"].selection_change(
            bound(picking.viewer_picked, parts), self._of(), film, **LATEST
        )
        # Each of them, in their order: a pick in the viewer is in the frame of the last one.
        parts["viewer"].time_update(picking.viewer_time, self._of(), None, **EACH)

    def _exporting(self) -> None:
        exporting = self._handlers.exporting
        for name, write in (("rrd", exporting.recording), ("json", exporting.summary)):
            made = self._parts[f"make_{name}"].click(write, self._of(), self._parts[name], **QUIET)
            made.success(None, None, None, js=DOWNLOAD_JS.replace("{id}", f"download_{name}"))
