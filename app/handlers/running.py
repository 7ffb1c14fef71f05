"""Running a look, streamed to the page, and stopping it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from typing import Any

from app import export, film, legend, links, metrics_panel
from app._gradio import gr
from app.choice import Choice, stale
from app.handlers.shared import Shared, Update
from app.looks import Look
from app.progress import Progress
from app.state import Run, Session
from app.window import Window
from explorer.errors import Cancelled, EmergeError
from explorer.look import (
    NO_REFERENCE,
    Compared,
    Decoded,
    FeaturesReady,
    Finished,
    LookRequest,
    Referenced,
    look,
)
from explorer.recording import Recording

log = logging.getLogger(__name__)

UNEXPECTED = "Something unexpected went wrong; the log of the server says more."


class Running:
    """Run and Stop."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

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
        judge: str = NO_REFERENCE,
    ) -> Iterator[Update]:
        """One look, streamed. Errors end it with a line that says what to do."""
        run = session.begin()
        source = session.source  # another clip may be chosen while this one runs
        turns = self._shared.turns
        steps = Progress(judged=judge != NO_REFERENCE)
        # What the last update repeats: a page that is busy drawing skips some of a fast run.
        latest: Update = {
            "intro": gr.update(visible=False),
            "legend": gr.update(visible=True),
            "stop": _on(True),
        }
        yield _whole(latest, {"status": steps.html("Starting …", kind="waiting")})
        end: Update
        try:
            choice = Choice(
                source,
                Window(int(start), int(stride), int(count)),
                backbone,
                int(layer),
                round(float(sigma), 2),
                reference,
                judge,
            )
            session.controls = choice
            if source is None:
                raise EmergeError("No video is chosen: pick a clip or upload one.")
            if not source.path.is_file():
                raise EmergeError(
                    f"{source.name} is no longer on the server: upload or pick it again."
                )
            request = LookRequest(
                path=source.path,
                backbone=choice.backbone,
                layer=choice.layer,
                sigma=choice.sigma,
                reference=choice.reference,
                judge=choice.judge,
                start=choice.window.start,
                stride=choice.window.stride,
                count=choice.window.count,
            )
            for ahead in turns.enter(run):
                if not run.superseded:
                    waiting = steps.html(_queue_line(ahead), kind="waiting")
                    yield _whole(latest, {"status": waiting})
            try:
                for update in self._stages(session, run, choice, request, steps):
                    # For the viewer, None is the stream that it has.
                    latest |= {**update, "viewer": None} if "viewer" in update else update
                    yield _whole(latest, update)
            finally:
                turns.leave()
            end = {"status": steps.html(_done(steps, choice), kind="done")}
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
            said = stale(session.shown, session.controls)
            if "film" in latest:
                latest |= self._film(session)
            unfinished = self._unfinished(session)
            yield {**latest, **end, **unfinished, "stop": _on(False), "stale": said}

    def _stages(
        self, session: Session, run: Run, choice: Choice, request: LookRequest, steps: Progress
    ) -> Iterator[Update]:
        found = Look(secrets.token_hex(16), request)
        recording = Recording(export.stem(found))
        stages = look(request, store=self._shared.store, should_stop=run.stop.is_set)
        yield {"status": steps.html()}
        try:
            for stage in stages:
                if run.stop.is_set():
                    raise Cancelled("stopped")
                found.remember(stage)
                steps.add(stage)
                recording.on_stage(stage)
                update: Update = {"status": steps.html()}
                if data := recording.read():
                    update["viewer"] = data
                if isinstance(stage, Decoded):
                    # The viewer turns to the new look here, so all else on the page does too.
                    self._shared.adopt(session, found)
                    session.shown = choice
                    update["stale"] = stale(session.shown, session.controls)
                    update |= _exportable(recording=True, summary=False)
                elif isinstance(stage, FeaturesReady):
                    self._shared.adopt(session, found)
                    update["film"] = film.show(found, session.pick)
                elif isinstance(stage, Referenced) and session.pick is not None:
                    update["film"] = film.show(found, session.pick)
                elif isinstance(stage, Compared):
                    said = legend.html(
                        error=stage.report is not None,
                        disputed=found.agreement is not None,
                        no_prediction=found.reason,
                        reference=_about_reference(found),
                    )
                    update["legend"] = gr.update(value=said, visible=True)
                elif isinstance(stage, Finished):
                    update["metrics"] = metrics_panel.show(found)
                    update["log"] = gr.update(value=found.summary, visible=True)
                    update["link"] = _link(found, choice)
                    update |= _exportable(recording=True, summary=True)
                yield update
        finally:
            recording.read()  # what nobody will fetch would be complained about
            recording.discard()

    def _film(self, session: Session) -> Update:
        """The frames once more, with the pixel that is picked by now."""
        found = self._shared.looks.get(session.look_id)
        return {} if found is None else {"film": film.show(found, session.pick)}

    def _unfinished(self, session: Session) -> Update:
        """The panels of a look that was left halfway, which must not go on showing the last one."""
        found = self._shared.looks.get(session.look_id)
        if found is None or found.summary is not None:
            return {}
        return {
            "film": film.show(found, session.pick),
            "metrics": metrics_panel.show(found),
            "log": gr.update(value=None, visible=False),
            "link": "",
        }

    def stop(self, session: Session) -> Update:
        """Ask this page's run to stop; it ends within one transformer block or VAE chunk."""
        if not session.stop():
            return {"stop": _on(False)}
        return {"stop": gr.update(value="Stopping …", interactive=False)}


def _whole(latest: Update, update: Update) -> Update:
    """An update with all that an earlier one would lose to it.

    Gradio makes each update out of the one before, in place. To a page that hears several at once
    the earlier ones then say no more than the last of them, wherever they say it in a dictionary.
    """
    again = {name: each for name, each in latest.items() if each is None or isinstance(each, dict)}
    return {**again, **update}


def _queue_line(ahead: int) -> str:
    others = "another run" if ahead == 0 else f"{ahead + 1} other runs"
    return f"Waiting for {others} to finish …"


def _done(steps: Progress, choice: Choice) -> str:
    """What is on the page now, by name: its controls may have moved on since."""
    took = "Done" if steps.finished is None else f"Done in {steps.finished:.2f} s"
    return f"{took}: {choice.words()}."


def _about_reference(found: Look) -> str | None:
    """That the reference is an estimate, or why there is none and who might be asked; None for
    one that needs no such words.
    """
    if found.reference is None and found.request.reference == NO_REFERENCE:
        return "none was asked for; emerge3d references lists who can estimate geometry"
    return found.note


def _exportable(*, recording: bool, summary: bool) -> Update:
    return {
        "make_rrd": gr.update(interactive=recording),
        "make_json": gr.update(interactive=summary),
    }


def _link(found: Look, choice: Choice) -> str:
    source = choice.source
    if source is None or not source.shipped:
        return "Uploads have no link; their files stay in this session."
    request = found.request
    query = links.query(
        links.Cell(source.path.stem, request.backbone, request.layer, request.sigma)
    )
    return f"[A link to this cell of this clip]({query})"


def _on(running: bool) -> Any:
    return gr.update(value="Stop", interactive=running)
