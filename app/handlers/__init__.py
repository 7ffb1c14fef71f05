"""What happens on the page: coming and going, choosing, running, picking, exporting."""

from __future__ import annotations

from pathlib import Path

from app.handlers.choosing import Choosing
from app.handlers.exporting import Exporting
from app.handlers.picking import Picking
from app.handlers.running import Running
from app.handlers.shared import Shared, Update
from app.handlers.visits import Visits
from explorer.store import Store

__all__ = ["Handlers", "Update"]


class Handlers:
    """The handlers of all pages. They share the store and the turns; each page has its session.

    Args:
        store: cache of latents, features and reconstructions.
        downloads: folder for files made for download; the newest few stay there.
        at_once: runs that compute at the same time.
    """

    def __init__(self, store: Store, downloads: Path, *, at_once: int = 1) -> None:
        self.shared = Shared(store, downloads, at_once=at_once)
        self.choosing = Choosing()
        self.visits = Visits(self.shared, self.choosing)
        self.running = Running(self.shared)
        self.picking = Picking(self.shared)
        self.exporting = Exporting(self.shared)
