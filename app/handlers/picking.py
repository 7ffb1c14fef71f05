"""Looking closer: a pixel is picked in a tile or in the viewer's input picture."""

from __future__ import annotations

from app import film
from app._gradio import gr, rerun_events
from app.handlers.shared import NOT_KEPT, Shared, Update
from app.state import Pick, Session


class Picking:
    """A picked pixel fills the correspondence pane."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def picked(self, session: Session, event: gr.EventData) -> Update:
        """A pixel of a tile was clicked."""
        x, y = min(max(float(event.x), 0.0), 1.0), min(max(float(event.y), 0.0), 1.0)
        return self._pick(session, Pick(int(event.frame), x, y))

    async def viewer_time(self, session: Session, event: rerun_events.TimeUpdate) -> None:
        """The viewer shows another frame.

        Not in a thread, where a later frame could be overtaken by an earlier one.
        """
        session.viewer_time = float(event.payload.time)

    def viewer_picked(self, session: Session, event: rerun_events.SelectionChange) -> Update:
        """Something was selected in the viewer; a pixel of the input picture counts as a pick."""
        found = self._shared.looks.get(session.look_id)
        if found is None or found.clip is None:
            return {}
        for item in event.payload.items:
            if item.type == "entity" and item.entity_path == "/input" and item.position is not None:
                height, width = found.clip.size
                frame = min(max(int(session.viewer_time), 0), len(found.clip.frames) - 1)
                x, y = float(item.position[0]) / width, float(item.position[1]) / height
                if 0 <= x <= 1 and 0 <= y <= 1:
                    return self._pick(session, Pick(frame, x, y))
        return {}

    def _pick(self, session: Session, pick: Pick) -> Update:
        found = self._shared.looks.get(session.look_id)
        if found is None:
            if session.look_id is not None:
                gr.Info(NOT_KEPT)
            return {}
        session.pick = pick
        return {"film": film.show(found, pick)}
