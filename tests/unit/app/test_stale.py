"""Results that are not, or no longer, what the controls say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fake_looks import BACKBONE, clip, run, stages

from app import film, metrics_panel
from app._gradio import gr
from app.handlers import Handlers
from app.state import Session
from explorer.errors import ClipError
from explorer.look import Decoded, LookRequest, Stage


def moved(page: Handlers, session: Session, layer: float | None) -> Any:
    return page.choosing.controls_moved(session, 0, 1, 5, BACKBONE, layer, 0.0, "exact")


def test_results_of_another_cell_than_the_controls_say_are_called_old(
    page: Handlers, session: Session, looks: Any
) -> None:
    assert moved(page, session, 1) == {"stale": ""}  # nothing is shown yet
    looks(lambda request, **kwargs: stages(clip()))
    assert list(run(page, session))[-1]["stale"] == ""
    said = moved(page, session, 1)["stale"]
    assert "Shown: clip, rgb, layer 0, sigma 0.00." in said
    assert "<b>layer 1</b>: press Run" in said
    assert moved(page, session, None) == {}
    assert moved(page, session, 0) == {"stale": ""}


def test_results_stay_old_until_the_viewer_turns_to_the_new_look(
    page: Handlers, session: Session, looks: Any
) -> None:
    looks(lambda request, **kwargs: stages(clip()))
    list(run(page, session))
    assert session.source is not None
    session.source = replace(session.source, path=session.source.path, name="other")
    updates = run(page, session)
    before = []
    for update in updates:
        if "viewer" in update:
            break
        before.append(update)
    assert before
    assert not any("stale" in each for each in before)
    assert update["stale"] == ""
    moved(page, session, 1)  # while it runs
    assert "layer 1" in list(updates)[-1]["stale"]


def test_a_run_that_stops_halfway_leaves_no_panel_of_the_look_before(
    page: Handlers, session: Session, looks: Any
) -> None:
    def halfway(request: LookRequest, **kwargs: Any) -> Iterator[Stage]:
        yield Decoded(seconds=0.1, clip=clip(seed=3))
        raise ClipError("broken")

    looks(lambda request, **kwargs: stages(clip()))
    list(run(page, session))
    looks(halfway)
    last = list(run(page, session))[-1]
    assert "status failed" in last["status"]
    assert last["metrics"] == metrics_panel.EMPTY
    assert last["film"] == film.EMPTY
    assert last["log"]["value"] is None
    assert not last["log"]["visible"]
    with pytest.raises(gr.Error, match="no finished look"):
        page.exporting.summary(session)


def test_a_run_that_fails_before_it_shows_anything_leaves_the_page_as_it_was(
    page: Handlers, session: Session, looks: Any
) -> None:
    def broken(request: LookRequest, **kwargs: Any) -> Iterator[Stage]:
        raise ClipError("too few frames")
        yield

    looks(lambda request, **kwargs: stages(clip()))
    list(run(page, session))
    looks(broken)
    last = list(page.running.run(session, 0, 1, 5, BACKBONE, 1, 0.0, "exact"))[-1]
    assert not {"metrics", "film", "log"} & set(last)
    assert "Shown: clip, rgb, layer 0" in last["stale"]
