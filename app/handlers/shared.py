"""What the handlers share: the store, the turns, the kept looks and the open pages."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from app.looks import Look, Looks
from app.state import Session, Turns
from explorer.store import Store

NOT_KEPT = "This look is no longer in memory: press Run again (it comes from the store)."

Update = dict[str, Any]
"""New values by the name of the component; components that are not named stay as they are."""


class Shared:
    """One for all pages. The arguments are those of `Handlers`."""

    def __init__(self, store: Store, downloads: Path, *, at_once: int) -> None:
        self.store = store
        self.downloads = downloads
        self.looks = Looks()
        self.turns = Turns(at_once)
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def enter(self, page: str, session: Session) -> None:
        """A page was opened."""
        with self._lock:
            self._open[page] = session

    def leave(self, page: str) -> Session | None:
        """A page was left; its session, if it was open."""
        with self._lock:
            return self._open.pop(page, None)

    def adopt(self, session: Session, found: Look) -> None:
        """Make a look the session's; a picked pixel stays while the clip stays."""
        before = self.looks.get(session.look_id)
        if found.clip is None or before is None or before.clip is None:
            session.pick = None
        elif before.clip.content_hash != found.clip.content_hash:
            session.pick = None
        if before is not None:
            self.looks.drop(before.id)
        session.look_id = found.id
        with self._lock:
            shown = {each.look_id for each in self._open.values()}
        self.looks.put(found, shown=shown)
