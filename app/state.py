"""What the server remembers of each page (`Session`), and whose turn it is to compute (`Turns`).

Nothing here travels to the browser; a page only ever names a clip, a cell or a pixel.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.errors import Cancelled

if TYPE_CHECKING:
    from app.choice import Choice
    from explorer.clip import VideoInfo


@dataclass(frozen=True)
class Source:
    """The video that a page has chosen."""

    path: Path
    name: str
    info: VideoInfo
    shipped: bool


@dataclass(frozen=True)
class Pick:
    """A chosen pixel: image point (x, y) of one frame of the clip, as fractions of its size."""

    frame: int
    x: float
    y: float


class Run:
    """One press of Run. `stop` is polled between transformer blocks and VAE chunks."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(16)
        self.stop = threading.Event()
        self.superseded = False


class Session:
    """One open page. Handlers of the same page share this object; other pages never see it.

    `controls` is what the controls say, `shown` what the results on the page are of.
    """

    def __init__(self, source: Source | None = None) -> None:
        self.source = source
        self.pick: Pick | None = None
        self.look_id: str | None = None
        self.viewer_time = 0.0
        self.controls: Choice | None = None
        self.shown: Choice | None = None
        self._run: Run | None = None
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        """Gradio copies a State's initial value for each new page: a fresh session, same clip."""
        return Session(replace(self.source) if self.source else None)

    def begin(self) -> Run:
        """A new run; the one before it, if still going, is stopped and may no longer draw."""
        run = Run()
        with self._lock:
            if self._run is not None:
                self._run.superseded = True
                self._run.stop.set()
            self._run = run
        return run

    def end(self, run: Run) -> None:
        """The run is over, however it ended."""
        with self._lock:
            if self._run is run:
                self._run = None

    def stop(self) -> bool:
        """Ask this page's run to stop; False if none is going."""
        with self._lock:
            if self._run is None:
                return False
            self._run.stop.set()
            return True


class Turns:
    """How many runs compute at once; the others wait their turn and can leave the queue."""

    def __init__(self, at_once: int = 1) -> None:
        self._free = at_once
        self._waiting: list[Run] = []
        self._changed = threading.Condition()

    def enter(self, run: Run) -> Iterator[int]:
        """Yield the number of runs ahead, about twice a second, until it is this run's turn.

        Raises:
            Cancelled: the run was stopped while it waited.
        """
        with self._changed:
            self._waiting.append(run)
        try:
            while True:
                with self._changed:
                    if self._free and self._waiting[0] is run:
                        self._free -= 1
                        return
                    position = self._waiting.index(run)
                yield position
                with self._changed:
                    self._changed.wait(timeout=0.5)
                if run.stop.is_set():
                    raise Cancelled("stopped while waiting")
        finally:
            with self._changed:
                self._waiting.remove(run)
                self._changed.notify_all()

    def leave(self) -> None:
        """Give the place to the next one."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()
