"""What happens on the page: choosing, running, stopping, picking, exporting."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app import cell, export, film, gallery, links, map_panel, metrics_panel, window
from app._gradio import gr, rerun_events
from app.progress import Progress
from app.state import Look, Looks, Pick, Run, Session, Source, Turns
from app.warmup import WarmUp, default_card
from app.window import Window
from explorer.backbones import registry
from explorer.clip import inspect_video
from explorer.errors import Cancelled, EmergeError
from explorer.look import (
    Compared,
    Decoded,
    FeaturesReady,
    Finished,
    LookRequest,
    Predicted,
    Referenced,
    Stage,
    look,
)
from explorer.recording import Recording
from explorer.store import Store

log = logging.getLogger(__name__)

UNEXPECTED = "Something unexpected went wrong; the log of the server says more."
NOT_KEPT = "This look is no longer in memory: press Run again (it comes from the store)."

Update = dict[str, Any]
"""New values by the name of the component; components that are not named stay as they are."""


class Handlers:
    """The handlers of all pages. They share the store and the turns; each has its own session.

    Args:
        store: cache of latents, features and reconstructions.
        warm: the background loading.
        downloads: folder for files made for download; the newest few stay there.
        at_once: runs that compute at the same time.
    """

    def __init__(self, store: Store, warm: WarmUp, downloads: Path, *, at_once: int = 1) -> None:
        self.store = store
        self.warm = warm
        self.downloads = downloads
        self.looks = Looks()
        self.turns = Turns(at_once)
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    # Pages come and go

    def opened(self, session: Session, request: gr.Request) -> Update:
        """A page was loaded, perhaps through a link to a cell."""
        with self._lock:
            self._open[str(request.session_hash)] = session
        asked = links.parse(dict(request.query_params))
        linked = gallery.find(asked.clip)
        if linked is not None:
            session.source = linked
        known = {card.id for card in registry.cards()}
        update: Update = {}
        chosen = asked.backbone if asked.backbone in known else None
        if chosen or asked.layer is not None or asked.sigma is not None:
            card = registry.card(chosen or default_card().id)
            layer, sigma = card.default_cell
            layer = asked.layer if asked.layer is not None else layer
            sigma = asked.sigma if asked.sigma is not None else sigma
            update = self.backbone_chosen(session, card.id, layer=layer, sigma=sigma)
            update["backbone"] = card.id
        else:
            update = self.window_of(session, default_card().id)
        update["gallery"] = self.pictures(session)
        return update

    def closed(self, request: gr.Request) -> None:
        """A page was left: stop its run, forget its look."""
        with self._lock:
            session = self._open.pop(str(request.session_hash), None)
        if session is not None:
            stopped = session.stop()
            self.looks.drop(session.look_id)
            log.info("a page was closed%s", " during its run" if stopped else "")

    def pictures(self, session: Session) -> Any:
        """The gallery with the session's clip marked."""
        names = (source.name for source in gallery.shipped())
        pictures = list(zip(gallery.thumbnails(), names, strict=True))
        return gr.update(value=pictures, selected_index=self.position(session))

    def position(self, session: Session) -> int | None:
        """Where the session's clip is in the gallery; None for an upload."""
        shipped = gallery.shipped()
        paths = [source.path for source in shipped]
        source = session.source
        return paths.index(source.path) if source is not None and source.path in paths else None

    # Choosing

    def clip_chosen(self, session: Session, backbone: str, event: gr.SelectData) -> Update:
        """A shipped clip was clicked."""
        shipped = gallery.shipped()
        index = int(event.index)
        if 0 <= index < len(shipped):
            session.source = shipped[index]
        return self.window_of(session, backbone)

    def uploaded(self, session: Session, backbone: str, file: str) -> Update:
        """A video was uploaded; what cannot be used leaves the chosen clip as it was."""
        path = Path(file)
        try:
            session.source = Source(path, path.name, inspect_video(path), shipped=False)
        except EmergeError as error:
            gr.Warning(str(error), title="This file cannot be used")
            return {"status": Progress().html(str(error), kind="failed")}
        return {
            **self.window_of(session, backbone),
            "gallery": self.pictures(session),
            "status": Progress().html(f"{path.name} is here: press Run.", kind="idle"),
        }

    def window_of(self, session: Session, backbone: str) -> Update:
        """The window's controls for the session's video and backbone."""
        source = session.source
        if source is None:
            return {"preview": window.preview(None, Window(0, 1, 1))}
        card = registry.card(backbone)
        chosen = window.suggested(source, card)
        frames = source.info.frames
        return {
            "start": gr.update(maximum=max(frames - 1, 1), value=chosen.start),
            "stride": gr.update(value=chosen.stride),
            "count": gr.update(choices=window.counts(card, frames), value=chosen.count),
            "preview": window.preview(source, chosen),
        }

    def window_moved(self, session: Session, start: float, stride: float, count: int) -> Update:
        """A control of the window was moved."""
        return {"preview": window.preview(session.source, Window(int(start), int(stride), count))}

    def backbone_chosen(
        self,
        session: Session,
        backbone: str,
        *,
        layer: int | None = None,
        sigma: float | None = None,
    ) -> Update:
        """Another backbone: its layers, its noise, its window, its map."""
        card = registry.card(backbone)
        default_layer, default_sigma = card.default_cell
        layer = default_layer if layer is None else min(max(layer, 0), card.layers - 1)
        sigma = default_sigma if sigma is None else sigma
        return {
            **self.window_of(session, backbone),
            "about": cell.about(backbone),
            "layer": gr.update(
                maximum=max(card.layers - 1, 1), value=layer, interactive=card.layers > 1
            ),
            "sigma": gr.update(value=sigma, interactive=card.uses_sigma),
            "cell": cell.note(backbone, layer, sigma, warm=self.warm),
        }

    def cell_moved(self, backbone: str, layer: float, sigma: float, metric: str) -> Update:
        """Another layer, sigma, backbone or metric of the map."""
        chosen, noise = int(layer), round(float(sigma), 2)
        return {
            "cell": cell.note(backbone, chosen, noise, warm=self.warm),
            "map": map_panel.value(backbone, metric, layer=chosen, sigma=noise),
        }

    def cell_clicked(self, event: gr.EventData) -> Update:
        """A cell of the map was clicked; running it follows."""
        return {"layer": int(event.layer), "sigma": float(event.sigma)}

    # Running

    def run(
        self,
        session: Session,
        start: float,
        stride: float,
        count: int,
        backbone: str,
        layer: float,
        sigma: float,
        reference: str,
    ) -> Iterator[Update]:
        """One look, streamed. Errors end it with a line that says what to do."""
        run = session.begin()
        steps = Progress()
        yield {
            "status": steps.html("Starting …", kind="waiting"),
            "stop": _on(True),
            "intro": gr.update(visible=False),
        }
        end: Update
        try:
            if session.source is None:
                raise EmergeError("No video is chosen: pick a clip or upload one.")
            if not session.source.path.is_file():
                name = session.source.name
                raise EmergeError(f"{name} is no longer on the server: upload or pick it again.")
            request = LookRequest(
                path=session.source.path,
                backbone=backbone,
                layer=int(layer),
                sigma=round(float(sigma), 2),
                reference=reference,
                start=int(start),
                stride=int(stride),
                count=int(count),
            )
            for ahead in self.turns.enter(run):
                if not run.superseded:
                    yield {"status": steps.html(_queue_line(ahead), kind="waiting")}
            try:
                yield from self._stages(session, run, request, steps)
            finally:
                self.turns.leave()
            end = {"status": steps.html(_done(steps), kind="done")}
        except Cancelled:
            end = {"status": steps.html("Stopped. Press Run to start again.", kind="stopped")}
        except EmergeError as error:
            end = {"status": steps.html(str(error), kind="failed")}
        except Exception:
            log.exception("a run failed")
            end = {"status": steps.html(UNEXPECTED, kind="failed")}
        finally:
            session.end(run)
        if not run.superseded:
            yield {**end, "stop": _on(False)}

    def _stages(
        self, session: Session, run: Run, request: LookRequest, steps: Progress
    ) -> Iterator[Update]:
        found = Look(secrets.token_hex(16), request)
        recording = Recording(export.stem(found))
        stages = look(request, store=self.store, should_stop=run.stop.is_set)
        yield {"status": steps.html()}
        try:
            for stage in stages:
                if run.stop.is_set():
                    raise Cancelled("stopped")
                _remember(found, stage)
                steps.add(stage)
                recording.on_stage(stage)
                update: Update = {"status": steps.html()}
                if data := recording.read():
                    update["viewer"] = data
                if isinstance(stage, FeaturesReady):
                    self._adopt(session, found)
                    update["film"] = film.show(found, session.pick)
                elif isinstance(stage, Referenced) and session.pick is not None:
                    update["film"] = film.show(found, session.pick)
                elif isinstance(stage, Finished):
                    update["metrics"] = metrics_panel.show(found)
                    update["log"] = found.summary
                    update["link"] = _link(found, session.source)
                yield update
        finally:
            recording.read()  # what nobody will fetch would be complained about
            recording.discard()

    def _adopt(self, session: Session, found: Look) -> None:
        """Make a look the session's; a picked pixel stays while the clip stays."""
        before = self.looks.get(session.look_id)
        if found.clip is None or before is None or before.clip is None:
            session.pick = None
        elif before.clip.content_hash != found.clip.content_hash:
            session.pick = None
        if before is not None:
            self.looks.drop(before.id)
        self.looks.put(found)
        session.look_id = found.id

    def stop(self, session: Session) -> Update:
        """Ask this page's run to stop; it ends within one transformer block or VAE chunk."""
        if not session.stop():
            return {"stop": _on(False)}
        return {"stop": gr.update(value="Stopping …", interactive=False)}

    # Looking closer

    def picked(self, session: Session, event: gr.EventData) -> Update:
        """A pixel of a tile was clicked."""
        x, y = min(max(float(event.x), 0.0), 1.0), min(max(float(event.y), 0.0), 1.0)
        return self._pick(session, Pick(int(event.slot), x, y))

    def viewer_time(self, session: Session, event: rerun_events.TimeUpdate) -> None:
        """The viewer shows another frame."""
        session.viewer_time = float(event.payload.time)

    def viewer_picked(self, session: Session, event: rerun_events.SelectionChange) -> Update:
        """Something was selected in the viewer; a pixel of the input picture counts as a pick."""
        found = self.looks.get(session.look_id)
        if found is None or found.clip is None or found.features is None:
            return {}
        for item in event.payload.items:
            if item.type == "entity" and item.entity_path == "/input" and item.position is not None:
                height, width = found.clip.size
                frame = min(max(int(session.viewer_time), 0), len(found.clip.frames) - 1)
                slot = int(found.features.frame_to_slot[frame])
                x, y = float(item.position[0]) / width, float(item.position[1]) / height
                if 0 <= x <= 1 and 0 <= y <= 1:
                    return self._pick(session, Pick(slot, x, y))
        return {}

    def _pick(self, session: Session, pick: Pick) -> Update:
        found = self.looks.get(session.look_id)
        if found is None:
            if session.look_id is not None:
                gr.Info(NOT_KEPT)
            return {}
        session.pick = pick
        return {"film": film.show(found, pick)}

    # Taking away

    def export_recording(self, session: Session) -> str:
        """Write the .rrd for download."""
        return self._export(session, export.recording)

    def export_summary(self, session: Session) -> str:
        """Write the .json for download."""
        return self._export(session, export.summary)

    def _export(self, session: Session, write: Any) -> str:
        found = self.looks.get(session.look_id)
        try:
            if found is None:
                raise EmergeError(NOT_KEPT if session.look_id else "Press Run first.")
            return str(write(found, self.downloads))
        except EmergeError as error:
            raise gr.Error(str(error), print_exception=False) from None


def _remember(found: Look, stage: Stage) -> None:
    found.stages.append(stage)
    match stage:
        case Decoded():
            found.clip = stage.clip
        case FeaturesReady():
            found.features = stage.features
        case Predicted():
            found.prediction, found.reason = stage.reconstruction, stage.reason
        case Referenced():
            found.reference, found.note = stage.full or stage.reconstruction, stage.note
        case Compared():
            found.report, found.correspondence = stage.report, stage.correspondence
        case Finished():
            found.summary = stage.summary


def _queue_line(ahead: int) -> str:
    others = "another run" if ahead == 0 else f"{ahead + 1} other runs"
    return f"Waiting for {others} to finish …"


def _done(steps: Progress) -> str:
    return "Done." if steps.finished is None else f"Done in {steps.finished:.2f} s."


def _link(found: Look, source: Source | None) -> str:
    if source is None or not source.shipped:
        return "Uploads have no link; their files stay in this session."
    request = found.request
    query = links.query(
        links.Cell(source.path.stem, request.backbone, request.layer, request.sigma)
    )
    return f"[A link to this cell of this clip]({query})"


def _on(running: bool) -> Any:
    return gr.update(value="Stop", interactive=running)
