"""What the controls say, against what the page shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from app.choice import Choice, stale
from app.state import Source
from app.window import Window
from explorer.clip import VideoInfo

CLIP = Source(Path("a.mp4"), "room orbit", VideoInfo(40, 24.0, 1.7, (144, 256)), shipped=True)
SHOWN = Choice(CLIP, Window(0, 1, 17), "toy-wan", 5, 0.3, "exact")


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (replace(SHOWN, layer=7), "layer 7"),
        (replace(SHOWN, sigma=0.5), "sigma 0.50"),
        (replace(SHOWN, backbone="rgb", layer=0), "rgb, layer 0"),
        (replace(SHOWN, reference="none"), "reference none"),
        (replace(SHOWN, judge="colmap"), "second judge colmap"),
        (replace(SHOWN, window=Window(2, 2, 9)), "frames 2 to 18, 9 of them"),
        (replace(SHOWN, source=replace(CLIP, path=Path("b.mp4"), name="b")), "b"),
        (replace(SHOWN, source=None), "no video"),
    ],
)
def test_what_differs_is_named_beside_what_is_shown(now: Choice, words: str) -> None:
    said = stale(SHOWN, now)
    assert "Shown: room orbit, toy-wan, layer 5, sigma 0.30." in said
    assert f"<b>{words}</b>: press Run." in said


def test_nothing_is_said_while_the_controls_agree_or_nothing_is_shown() -> None:
    assert stale(SHOWN, replace(SHOWN)) == ""
    assert stale(None, SHOWN) == ""
    assert stale(SHOWN, None) == ""


def test_another_clips_window_is_not_told_apart_from_the_clip() -> None:
    other = replace(CLIP, path=Path("b.mp4"), name="b")
    said = stale(SHOWN, replace(SHOWN, source=other, window=Window(0, 2, 9)))
    assert "<b>b</b>: press Run." in said


def test_names_of_files_are_escaped() -> None:
    shown = replace(SHOWN, source=replace(CLIP, name="<i>x</i>"))
    assert "<i>" not in stale(shown, replace(SHOWN, source=replace(CLIP, name="<i>y</i>")))
