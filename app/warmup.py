"""Loads torch, diffusers and the first model in the background, once the page is being served."""

from __future__ import annotations

import logging
import threading
import time

from explorer.backbones import registry
from explorer.backbones.base import BackboneCard
from explorer.errors import EmergeError

log = logging.getLogger(__name__)

FIRST_PAGE_SECONDS = 3.0
"""How long loading waits for the first page, which it would slow down."""


def default_card() -> BackboneCard:
    """The backbone shown first: a model before the controls that question it."""
    cards = registry.here()
    return next((card for card in cards if card.kind != "control"), cards[0])


class WarmUp:
    """The background thread and what the page says about it."""

    def __init__(self) -> None:
        self.first_page = threading.Event()
        self.ready = threading.Event()
        self.device = ""
        self.seconds = 0.0
        self.problem: str | None = None
        self._over = threading.Event()

    def start(self) -> None:
        """Begin, without waiting for it."""
        threading.Thread(target=self._work, name="warm-up", daemon=True).start()

    def end(self) -> None:
        """The server ends: what loading may now run into is nobody's concern."""
        self._over.set()

    def state(self) -> dict[str, object]:
        """What `/ready` answers."""
        return {
            "ready": self.ready.is_set(),
            "device": self.device,
            "seconds": round(self.seconds, 2),
            "problem": self.problem,
        }

    def _work(self) -> None:
        self.first_page.wait(FIRST_PAGE_SECONDS)
        begun = time.monotonic()
        try:
            import diffusers  # noqa: F401
            import torch

            cuda = torch.cuda.is_available()
            self.device = f"GPU: {torch.cuda.get_device_name(0)}" if cuda else "CPU"
            registry.load(default_card().id)
        except EmergeError as error:
            self.problem = str(error)
            log.warning("warm-up: %s", error)
        except Exception:
            if self._over.is_set():
                return
            self.problem = "loading failed; the server's log says more"
            log.exception("warm-up failed")
        if self._over.is_set():
            return
        self.seconds = time.monotonic() - begun
        self.ready.set()
        log.info("ready on %s after %.1f s", self.device or "?", self.seconds)
