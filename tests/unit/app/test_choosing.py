"""Choosing a video, its window and its reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_looks import BACKBONE

from app import window
from app._gradio import gr
from app.handlers import Handlers
from app.state import Session
from explorer.clip import VideoInfo, load_clip
from explorer.references import estimate, exact


def test_another_backbone_changes_nothing_that_can_stay(page: Handlers, session: Session) -> None:
    assert session.source is not None
    session.source = replace(session.source, info=VideoInfo(30, 24.0, 1.25, (18, 32)))
    update = page.choosing.backbone_chosen(session, BACKBONE, 6, 2, 9)
    assert set(update) == {"count"}
    assert "value" not in update["count"], "somebody may be choosing another one just now"
    update = page.choosing.backbone_chosen(session, BACKBONE, 6, 2, 7)
    assert set(update) == {"count", "preview"}
    assert update["count"]["value"] == 5
    update = page.choosing.backbone_chosen(session, BACKBONE, 40, 2, 9)
    assert (update["start"], update["stride"]) == (0, 1)


def test_a_page_opened_without_a_link_is_left_as_it_was_built(
    page: Handlers, session: Session
) -> None:
    def opened(**query: str) -> Any:
        request = SimpleNamespace(session_hash="a", query_params=query)
        return page.visits.opened(session, request)  # type: ignore[arg-type]

    assert opened() == {}
    assert opened(layer="3")["layer"] == 3
    linked = opened(backbone=BACKBONE, layer="7", sigma="0.5")
    assert (linked["backbone"], linked["layer"], linked["sigma"]) == (BACKBONE, 0, 0.5)
    assert "preview" in linked


def test_a_moved_window_shows_its_first_and_last_frame_or_that_it_does_not_fit(
    page: Handlers, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert session.source is not None
    session.source = replace(session.source, info=VideoInfo(30, 24.0, 1.25, (18, 32)))
    asked: list[int] = []

    def picture(source: Any, frame: int, *, size: tuple[int, int]) -> np.ndarray:
        asked.append(frame)
        return np.zeros((*size, 3), np.uint8)

    monkeypatch.setattr("app.gallery.picture", picture)
    shown = page.choosing.window_moved(session, 6.0, 3.0, 5)["preview"]
    assert asked == [6, 18]
    assert "frame 6<" in shown
    assert "frame 18<" in shown
    past = page.choosing.window_moved(session, 6.0, 6.0, 5)
    assert set(past) == {"preview"}
    assert "ends at frame 30" in past["preview"]
    assert asked == [6, 18]


def test_a_window_past_the_end_of_the_video_is_suggested_anew(session: Session) -> None:
    from explorer.backbones import registry

    assert session.source is not None
    rgb = registry.card(BACKBONE)
    past = window.Window(7, 3, 5)
    assert window.kept(session.source, rgb, past) == window.suggested(session.source, rgb)


def test_an_upload_has_the_best_judge_at_hand_unless_its_geometry_is_here(
    page: Handlers, session: Session, make_video: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = make_video("own.mp4")
    monkeypatch.setattr(estimate, "JUDGES", ("colmap",))
    assert page.choosing.uploaded(session, BACKBONE, str(video))["reference"] == "estimate"
    monkeypatch.setattr(estimate, "JUDGES", ())  # nobody is here
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
