"""Runs as the page sees them, with a look that does what the test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_looks import clip, run, stages

from app import export
from app._gradio import gr
from app.handlers import Handlers
from app.handlers.running import UNEXPECTED
from app.handlers.shared import NOT_KEPT
from app.state import Pick, Session
from explorer.camera import Cameras
from explorer.errors import Cancelled, ClipError
from explorer.look import Compared, Decoded, LookRequest, Referenced, Stage
from explorer.reconstruction import Reconstruction


def test_a_run_streams_recording_film_and_summary(
    page: Handlers, session: Session, looks: Any
) -> None:
    looks(lambda request, **kwargs: stages(clip()))
    updates = list(run(page, session))
    viewer = [update["viewer"] for update in updates if update.get("viewer") is not None]
    assert viewer
    assert all(isinstance(data, bytes) and data for data in viewer)
    assert any("tile" in update.get("film", "") for update in updates)
    log = next(update["log"] for update in updates if "log" in update)
    assert log["value"] == {"point_error": None}
    assert log["visible"]
    assert "Done in 0.30 s: " in updates[-1]["status"]
    assert "rgb, layer 0, sigma 0." in updates[-1]["status"]
    assert page.shared.looks.get(session.look_id) is not None


def test_a_run_looks_at_what_the_controls_say(page: Handlers, session: Session, looks: Any) -> None:
    asked: list[LookRequest] = []

    def listening(request: LookRequest, **_: Any) -> Iterator[Stage]:
        asked.append(request)
        return stages(clip())

    looks(listening)
    list(page.running.run(session, 6.0, 3.0, 9, "random", 7.0, 0.35, "vggt", "colmap"))
    assert session.source is not None
    assert asked == [
        LookRequest(
            session.source.path,
            "random",
            7,
            0.35,
            reference="vggt",
            judge="colmap",
            start=6,
            stride=3,
            count=9,
        )
    ]


def test_a_run_without_a_reference_says_why_below_the_viewer(
    page: Handlers, session: Session, looks: Any
) -> None:
    def without(*_: Any, **__: Any) -> Iterator[Stage]:
        decoded, ready, finished = stages(clip())
        yield from (decoded, ready)
        yield Referenced(seconds=0.2, reconstruction=None, full=None, note="too little parallax")
        yield Compared(seconds=0.2, report=None, correspondence=None)
        yield finished

    looks(without)
    last = list(run(page, session))[-1]
    assert "<b>Reference</b><small>too little parallax</small>" in last["legend"]["value"]


def test_an_estimate_is_called_one_below_the_viewer(
    page: Handlers, session: Session, looks: Any
) -> None:
    points = np.ones((2, 4, 6, 3), np.float32)
    cameras = Cameras(np.tile(np.eye(3, 4), (2, 1, 1)), np.tile(np.eye(3), (2, 1, 1)), (4, 6))
    known = np.ones((2, 4, 6), np.float32)
    estimate = Reconstruction(np.array([0, 1]), known, points, known, cameras, "toy-vggt")
    said = "the reference toy-vggt is a toy estimate, not ground truth"

    def estimated(*_: Any, **__: Any) -> Iterator[Stage]:
        decoded, ready, finished = stages(clip())
        yield from (decoded, ready)
        yield Referenced(seconds=0.2, reconstruction=estimate, full=estimate, note=said)
        yield Compared(seconds=0.2, report=None, correspondence=None)
        yield finished

    looks(estimated)
    last = list(run(page, session))[-1]
    assert f"<b>Reference</b><small>{said}</small>" in last["legend"]["value"]


def test_the_last_update_of_a_run_repeats_what_a_busy_page_may_have_skipped(
    page: Handlers, session: Session, looks: Any
) -> None:
    looks(lambda request, **kwargs: stages(clip()))
    updates = list(run(page, session))
    said = {name for update in updates for name in update}
    assert said == set(updates[-1])
    assert updates[-1]["viewer"] is None, "the stream that the viewer has"
    assert updates[-1]["intro"]["visible"] is False
    assert updates[-1]["legend"]["visible"] is True
    assert "tile" in updates[-1]["film"]
    assert updates[-1]["log"]["value"] == {"point_error": None}


def test_no_update_of_a_run_leaves_out_what_an_earlier_one_said_in_a_dictionary(
    page: Handlers, session: Session, looks: Any
) -> None:
    looks(lambda request, **kwargs: stages(clip()))
    said: set[str] = set()
    for update in run(page, session):
        assert said <= update.keys()
        said |= {name for name, value in update.items() if isinstance(value, dict | bytes)}
    assert said == {"intro", "legend", "stop", "viewer", "make_rrd", "make_json", "log"}


def test_a_readable_error_ends_the_run_with_its_text_and_the_next_run_works(
    page: Handlers, session: Session, looks: Any
) -> None:
    def broken(request: LookRequest, **kwargs: Any) -> Iterator[Stage]:
        yield Decoded(seconds=0.1, clip=clip())
        raise ClipError("clip.mp4 is empty: copy it again")

    looks(broken)
    assert "clip.mp4 is empty: copy it again" in list(run(page, session))[-1]["status"]
    looks(lambda request, **kwargs: stages(clip()))
    assert "status done" in list(run(page, session))[-1]["status"]


def test_an_unexpected_error_goes_to_the_log_and_not_to_the_page(
    page: Handlers, session: Session, looks: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(request: LookRequest, **kwargs: Any) -> Iterator[Stage]:
        raise RuntimeError("/secret/path")
        yield

    looks(broken)
    said = list(run(page, session))[-1]["status"]
    assert UNEXPECTED in said
    assert "secret" not in said
    assert "/secret/path" in caplog.text


def test_stop_reaches_the_look_and_ends_the_run(
    page: Handlers, session: Session, looks: Any
) -> None:
    def patient(
        request: LookRequest, *, should_stop: Callable[[], bool], **kwargs: Any
    ) -> Iterator[Stage]:
        yield Decoded(seconds=0.1, clip=clip())
        if should_stop():
            raise Cancelled("stopped")
        pytest.fail("the look went on")

    looks(patient)
    going = run(page, session)
    while "viewer" not in next(going):
        pass
    page.running.stop(session)
    assert "status stopped" in list(going)[-1]["status"]


def test_a_second_run_of_a_page_silences_the_first(
    page: Handlers, session: Session, looks: Any
) -> None:
    looks(lambda request, **kwargs: stages(clip()))
    first = run(page, session)
    while "viewer" not in next(first):
        pass
    second = run(page, session)
    next(second)
    assert list(first) == []
    assert "status done" in list(second)[-1]["status"]


def test_a_closed_page_gives_its_turn_to_the_next_one(
    page: Handlers, session: Session, looks: Any
) -> None:
    looks(lambda request, **kwargs: stages(clip()))
    going = run(page, session)
    while "viewer" not in next(going):
        pass
    going.close()
    assert "status done" in list(run(page, Session(session.source)))[-1]["status"]


def test_a_picked_pixel_stays_while_the_clip_stays(
    page: Handlers, session: Session, looks: Any
) -> None:
    looks(lambda request, **kwargs: stages(clip()))
    list(run(page, session))
    page.picking.picked(session, SimpleNamespace(frame=1, x=0.25, y=2.0))
    assert session.pick == Pick(1, 0.25, 1.0)
    films = [update["film"] for update in run(page, session) if "film" in update]
    assert "tile picked" in films[-1]
    looks(lambda request, **kwargs: stages(clip(seed=5)))
    films = [update["film"] for update in run(page, session) if "film" in update]
    assert "tile picked" not in films[-1]


def test_a_pixel_of_the_viewers_input_picture_is_picked_in_the_frame_that_it_shows(
    page: Handlers, session: Session, looks: Any
) -> None:
    looks(lambda request, **kwargs: stages(clip()))
    list(run(page, session))
    shown = SimpleNamespace(payload=SimpleNamespace(time=3.0))
    asyncio.run(page.picking.viewer_time(session, shown))
    item = SimpleNamespace(type="entity", entity_path="/input", position=[16.0, 9.0, 0.0])
    elsewhere = SimpleNamespace(type="entity", entity_path="/depth", position=[1.0, 1.0, 0.0])
    view = SimpleNamespace(type="view")
    event = SimpleNamespace(payload=SimpleNamespace(items=[view, elsewhere]))
    assert page.picking.viewer_picked(session, event) == {}
    event = SimpleNamespace(payload=SimpleNamespace(items=[view, item]))
    shown = page.picking.viewer_picked(session, event)["film"]
    assert session.pick == Pick(3, 0.5, 0.5)
    assert "in frame 3." in shown
    assert "<figure class='tile picked' data-frame='3'" in shown


def test_the_link_names_the_clip_that_ran_even_if_another_was_chosen_meanwhile(
    page: Handlers, session: Session, looks: Any, tmp_path: Path
) -> None:
    looks(lambda request, **kwargs: stages(clip()))
    going = run(page, session)
    while "viewer" not in next(going):
        pass
    assert session.source is not None
    session.source = replace(session.source, path=tmp_path / "other.mp4", name="other")
    links = [update["link"] for update in going if "link" in update]
    assert len(set(links)) == 1
    assert "clip=clip&" in links[0]


def test_what_one_page_looked_at_cannot_be_exported_by_another(
    page: Handlers, session: Session, looks: Any
) -> None:
    looks(lambda request, **kwargs: stages(clip()))
    list(run(page, session))
    path = Path(page.exporting.summary(session))
    assert json.loads(path.read_text()) == {"point_error": None}
    assert path.name == "clip_rgb_L00_S0.00.json"
    with pytest.raises(gr.Error, match="Press Run first"):
        page.exporting.summary(Session(session.source))
    page.shared.looks.drop(session.look_id)
    with pytest.raises(gr.Error) as error:
        page.exporting.recording(session)
    assert NOT_KEPT in str(error.value)


def test_without_a_video_a_run_says_what_to_do(page: Handlers) -> None:
    assert "pick a clip" in list(run(page, Session()))[-1]["status"]


def test_an_upload_that_was_cleaned_away_is_asked_for_again(
    page: Handlers, session: Session
) -> None:
    assert session.source is not None
    session.source.path.unlink()
    said = list(run(page, session))[-1]["status"]
    assert "upload or pick it again" in said
    assert str(session.source.path.parent) not in said


def test_old_exports_are_removed(page: Handlers, session: Session, looks: Any) -> None:
    looks(lambda request, **kwargs: stages(clip()))
    list(run(page, session))
    paths = [Path(page.exporting.summary(session)) for _ in range(export.KEPT + 2)]
    assert paths[-1].is_file()
    assert len(list(page.shared.downloads.iterdir())) == export.KEPT


def test_the_downloads_can_be_pressed_once_there_is_something_to_download(
    page: Handlers, session: Session, looks: Any
) -> None:
    looks(lambda request, **kwargs: stages(clip()))
    pressed = [
        (update["make_rrd"]["interactive"], update["make_json"]["interactive"])
        for update in run(page, session)
        if "make_rrd" in update
    ]
    assert list(dict.fromkeys(pressed)) == [(True, False), (True, True)]
