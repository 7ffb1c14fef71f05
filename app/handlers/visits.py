"""Pages come and go."""

from __future__ import annotations

import logging

from app import cell, gallery, links
from app._gradio import gr
from app.handlers.choosing import Choosing, marked
from app.handlers.shared import Shared, Update
from app.state import Session
from app.warmup import default_card
from explorer.backbones import registry

log = logging.getLogger(__name__)


class Visits:
    """A page is opened, perhaps through a link; a page is left."""

    def __init__(self, shared: Shared, choosing: Choosing) -> None:
        self._shared = shared
        self._choosing = choosing

    def opened(self, session: Session, request: gr.Request) -> Update:
        """A page was loaded, perhaps through a link to a cell."""
        self._shared.enter(str(request.session_hash), session)
        asked = links.parse(dict(request.query_params))
        linked = gallery.find(asked.clip)
        if linked is not None:
            session.source = linked
        known = {card.id for card in registry.here()}
        linked_backbone = asked.backbone if asked.backbone in known else None
        card = registry.card(linked_backbone or default_card().id)
        # Without a link the page is as it was built, unless somebody has been faster than this.
        update: Update = {}
        if linked is not None:
            update["gallery"] = marked(linked)
        if linked is not None or linked_backbone:
            update |= self._choosing.window_of(session, card.id)
        if linked_backbone or asked.layer is not None or asked.sigma is not None:
            layer, sigma = card.default_cell
            layer = asked.layer if asked.layer is not None else layer
            sigma = asked.sigma if asked.sigma is not None else sigma
            layer = min(max(layer, 0), card.layers - 1)
            update |= {
                "backbone": card.id,
                "about": cell.about(card.id),
                "layer": layer,
                "sigma": sigma,
                "cell": cell.note(card.id, layer, sigma),
            }
        return update

    def closed(self, request: gr.Request) -> None:
        """A page was left: stop its run, forget its look."""
        session = self._shared.leave(str(request.session_hash))
        if session is not None:
            stopped = session.stop()
            self._shared.looks.drop(session.look_id)
            log.info("a page was closed%s", " during its run" if stopped else "")
