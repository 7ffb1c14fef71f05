"""Taking a look away as a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from app import export
from app._gradio import gr
from app.handlers.shared import NOT_KEPT, Shared
from app.looks import Look
from app.state import Session
from explorer.errors import EmergeError


class Exporting:
    """Files of the look that a page shows; other pages cannot have them."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def recording(self, session: Session) -> str:
        """Write the .rrd for download."""
        return self._export(session, export.recording)

    def summary(self, session: Session) -> str:
        """Write the .json for download."""
        return self._export(session, export.summary)

    def _export(self, session: Session, write: Callable[[Look, Path], Path]) -> str:
        found = self._shared.looks.get(session.look_id)
        try:
            if found is None:
                raise EmergeError(NOT_KEPT if session.look_id else "Press Run first.")
            return str(write(found, self._shared.downloads))
        except EmergeError as error:
            raise gr.Error(str(error), print_exception=False) from None
