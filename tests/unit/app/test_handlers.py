"""Runs as the page sees them, with a look that does what the test wants."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app import export, film, map_panel, metrics_panel, window
from app._gradio import gr
from app.handlers import Handlers, running
from app.handlers.running import UNEXPECTED
from app.handlers.shared import NOT_KEPT
from app.looks import Look
from app.state import Pick, Session, Source
from explorer.backbones.base import slot_map
from explorer.clip import Clip, VideoInfo, clip_from_frames, load_clip
from explorer.errors import Cancelled, ClipError
from explorer.features import Features
from explorer.look import Decoded, FeaturesReady, Finished, LookRequest, Stage
from explorer.probe.checkpoint import ProbeCard
from explorer.references import exact
from explorer.store import Store

BACKBONE = "rgb"


def clip(seed: int = 0) -> Clip:
    frames = np.random.default_rng(seed).integers(0, 255, (5, 18, 32, 3)).astype(np.uint8)
    return clip_from_frames(frames, name="clip.mp4")


def features() -> Features:
    frame_to_slot, slot_frames = slot_map(5, 4)
    values = np.random.default_rng(1).normal(size=(2, 2, 4, 3)).astype(np.float16)
    return Features(values, frame_to_slot, slot_frames, BACKBONE, "0", 0, 0.0, 0.0, 999, 0)


def stages(shown: Clip) -> Iterator[Stage]:
    yield Decoded(seconds=0.1, clip=shown)
    yield FeaturesReady(seconds=0.2, features=features(), cached=False)
    yield Finished(seconds=0.3, summary={"point_error": None})


@pytest.fixture
def page(tmp_path: Path) -> Handlers:
    return Handlers(Store(tmp_path / "store"), tmp_path / "downloads")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    info = VideoInfo(5, 24.0, 0.2, (18, 32))
    (tmp_path / "clip.mp4").write_bytes(b"only its existence matters here")
    return Session(Source(tmp_path / "clip.mp4", "clip", info, shipped=True))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Iterator[Stage]]], None]:
    def use(fake: Callable[..., Iterator[Stage]]) -> None:
        monkeypatch.setattr(running, "look", lambda request, **kwargs: fake(request, **kwargs))

    return use


def run(page: Handlers, session: Session) -> Iterator[dict[str, Any]]:
    return page.running.run(session, 0, 1, 5, BACKBONE, 0, 0.0, "exact")


def test_a_run_streams_recording_film_and_summary(
    page: Handlers, session: Session, looks: Any
) -> None:
    looks(lambda request, **kwargs: stages(clip()))
    updates = list(run(page, session))
    viewer = [update["viewer"] for update in updates if "viewer" in update]
    assert viewer
    assert all(isinstance(data, bytes) and data for data in viewer)
    assert any("tile" in update.get("film", "") for update in updates)
    log = next(update["log"] for update in updates if "log" in update)
    assert log["value"] == {"point_error": None}
    assert log["visible"]
    assert "Done in 0.30 s: " in updates[-1]["status"]
    assert "rgb, layer 0, sigma 0." in updates[-1]["status"]
    assert page.shared.looks.get(session.look_id) is not None


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
    page.picking.viewer_time(session, SimpleNamespace(payload=SimpleNamespace(time=3.0)))
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
    assert len(links) == 1
    assert "clip=clip&" in links[0]


def test_another_backbone_keeps_the_first_frame_and_the_stride(
    page: Handlers, session: Session
) -> None:
    assert session.source is not None
    session.source = replace(session.source, info=VideoInfo(30, 24.0, 1.25, (18, 32)))
    update = page.choosing.backbone_chosen(session, BACKBONE, 6, 2, 9)
    assert [update[name]["value"] for name in ("start", "stride", "count")] == [6, 2, 9]
    update = page.choosing.backbone_chosen(session, BACKBONE, 6, 2, 7)
    assert [update[name]["value"] for name in ("start", "stride", "count")] == [6, 2, 5]


def test_a_window_past_the_end_of_the_video_is_suggested_anew(session: Session) -> None:
    from explorer.backbones import registry

    assert session.source is not None
    rgb = registry.card(BACKBONE)
    past = window.Window(7, 3, 5)
    assert window.kept(session.source, rgb, past) == window.suggested(session.source, rgb)


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


def card(metrics: dict[str, Any], *, trained: bool = True) -> ProbeCard:
    return ProbeCard("x", "0", 1, 0.3, 4, {}, {}, 10, 1.0, metrics, "", trained, Path("x"))


def test_metrics_show_intervals_and_dashes(monkeypatch: pytest.MonkeyPatch) -> None:
    own = card({"point_error": {"mean": 0.2, "low": 0.19, "high": 0.21}, "auc5": None})
    monkeypatch.setattr(metrics_panel, "find_probe", lambda *cell: own)
    monkeypatch.setattr(metrics_panel, "list_probes", lambda backbone: [])
    found = Look("id", LookRequest("clip.mp4", "x", 1, 0.3))
    assert metrics_panel.show(found) == metrics_panel.EMPTY
    found.features, found.summary = features(), {"point_error": 0.1234, "auc5": float("nan")}
    said = metrics_panel.show(found)
    assert "<td>0.123</td>" in said
    assert "0.200 <small>[0.190, 0.210]</small>" in said
    assert "nan" not in said
    assert "There is no reference, and errors need one" in said
    assert "nothing moves" not in said  # which needs one too


def test_metrics_show_the_shipped_evaluation_of_the_probe_and_of_the_controls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = replace(card({}), backbone=BACKBONE, sha256="abc", layer=0, sigma=0.0)
    control = replace(card({}), backbone="latent", sha256="def", layer=0, sigma=0.1)
    probes = {BACKBONE: [shipped], "latent": [control]}
    found = {"mean": 0.2, "low": 0.19, "high": 0.21, "count": 64}
    pixels = {"mean": 41.26, "low": 38.0, "high": 44.0, "count": 64}
    metrics = {"point_error": found, "correspondence_error_px": pixels, "auc5": None}
    cells = [
        {"backbone": BACKBONE, "layer": 0, "sigma": 0.0, "probe": "abc", "metrics": metrics},
        {"backbone": "latent", "layer": 0, "sigma": 0.1, "probe": "old", "metrics": metrics},
    ]
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "evaluation.json").write_text(json.dumps({"cells": cells}))
    monkeypatch.setenv("EMERGE3D_ASSETS", str(tmp_path))
    monkeypatch.setattr(metrics_panel, "find_probe", lambda *cell: shipped)
    monkeypatch.setattr(metrics_panel, "list_probes", lambda backbone: probes.get(backbone, []))
    shown = Look("id", LookRequest("clip.mp4", BACKBONE, 0, 0.0))
    shown.features, shown.summary = features(), {}
    rows = metrics_panel.show(shown).split("<tr")
    mine = next(row for row in rows if f"{BACKBONE}, layer 0" in row)
    assert "0.200 <small>[0.190, 0.210]</small>" in mine
    assert "41.3 <small>[38.0, 44.0]</small>" in mine
    assert mine.count("<td>–</td>") == 4
    other = next(row for row in rows if "latent, layer 0" in row)
    assert other.count("<td>–</td>") == 6  # that evaluation was of another probe
    assert "control, held-out mean" in other
    assert "95 % interval" in rows[-1]


def test_the_correspondence_error_has_the_nothing_moves_control_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_panel, "find_probe", lambda *cell: None)
    monkeypatch.setattr(metrics_panel, "list_probes", lambda backbone: [])
    found = Look("id", LookRequest("clip.mp4", "x", 1, 0.3))
    found.features = features()
    found.summary = {
        "correspondence_error_px": 66.35,
        "correspondence": {"error_px": 66.35, "still_error_px": 20.08},
    }
    said = metrics_panel.show(found)
    assert re.search(r"<td>66\.3 <small[^>]*>nothing moves: 20\.1</small></td>", said)
    assert "<li><b>nothing moves</b> the correspondence error of answering" in said


def test_one_name_for_the_correspondence_error_is_used_on_the_whole_page() -> None:
    labels = [label for label, key in map_panel.metrics() if key == "correspondence_error_px"]
    assert labels == ["correspondence error, px ↓"]
    text = " ".join(path.read_text() for path in Path(metrics_panel.__file__).parent.rglob("*.py"))
    assert not re.search(r"match(ing)? error", text, re.IGNORECASE)


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


def test_the_downloads_can_be_pressed_once_there_is_something_to_download(
    page: Handlers, session: Session, looks: Any
) -> None:
    looks(lambda request, **kwargs: stages(clip()))
    pressed = [
        (update["make_rrd"]["interactive"], update["make_json"]["interactive"])
        for update in run(page, session)
        if "make_rrd" in update
    ]
    assert pressed == [(True, False), (True, True)]


def test_an_upload_has_no_reference_unless_its_geometry_is_here(
    page: Handlers, session: Session, make_video: Any
) -> None:
    video = make_video("own.mp4")
    update = page.choosing.uploaded(session, BACKBONE, str(video))
    assert update["reference"] == "none"
    source = session.source
    assert source is not None
    assert source.name == "own.mp4"
    known = load_clip(video, start=0, stride=1, count=1).source_hash
    exact.register_geometry(known, Path("somewhere.safetensors"))
    try:
        assert page.choosing.uploaded(session, BACKBONE, str(video))["reference"] == "exact"
    finally:
        del exact._registered[known]


def test_a_shipped_clip_after_an_upload_gets_its_reference_back_but_not_after_another(
    page: Handlers, session: Session, make_video: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = session.source
    monkeypatch.setattr("app.gallery.shipped", lambda: (shipped,))
    monkeypatch.setattr("app.gallery.thumbnails", lambda: (np.zeros((90, 160, 3), np.uint8),))
    monkeypatch.setattr(window, "preview", lambda source, chosen: "")
    click = SimpleNamespace(index=0)
    assert "reference" not in page.choosing.clip_chosen(session, BACKBONE, click)
    page.choosing.uploaded(session, BACKBONE, str(make_video("own.mp4")))
    assert page.choosing.clip_chosen(session, BACKBONE, click)["reference"] == "exact"


def test_an_upload_that_cannot_be_read_is_told_in_the_status_line_alone(
    page: Handlers, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gr, "Warning", lambda *args, **kwargs: pytest.fail("a toast over it"))
    (tmp_path / "holiday.mp4").write_bytes(b"not a video")
    chosen = session.source
    update = page.choosing.uploaded(session, BACKBONE, str(tmp_path / "holiday.mp4"))
    assert set(update) == {"status"}
    assert "holiday.mp4 is not a video" in update["status"]
    assert "<ol" not in update["status"]  # no steps: nothing has run
    assert session.source is chosen


def test_the_map_carries_scores_and_says_which_probes_are_untrained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cards = [card({"point_error": 0.2}), card({}, trained=False)]
    monkeypatch.setattr(map_panel, "list_probes", lambda backbone: cards[:1])
    shown = json.loads(map_panel.value(BACKBONE, "point_error", layer=1, sigma=0.3))
    assert shown["figure"]["data"][0]["z"] == [[0.2]]
    monkeypatch.setattr(map_panel, "list_probes", lambda backbone: cards)
    shown = json.loads(map_panel.value(BACKBONE, "point_error", layer=1, sigma=0.3))
    assert "1 of 2 probes are untrained" in shown["note"]
    monkeypatch.setattr(map_panel, "list_probes", lambda backbone: [])
    shown = json.loads(map_panel.value(BACKBONE, "point_error", layer=1, sigma=0.3))
    assert shown["figure"] is None
    assert "No probe has been trained" in shown["note"]
