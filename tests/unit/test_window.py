from __future__ import annotations

import dataclasses

import pytest
from small_models import small_card

from explorer.clip import VideoInfo
from explorer.window import MAX_STRIDE, Window, most_frames, suggested_window

CARD = small_card("test", layers=1, default_cell=(0, 0.0))


def video(frames: int, fps: float = 24.0) -> VideoInfo:
    return VideoInfo(frames, fps, frames / fps, (360, 640))


@pytest.mark.parametrize(
    ("available", "most"), [(0, 1), (1, 1), (4, 1), (5, 5), (17, 17), (99, 17)]
)
def test_a_backbone_takes_one_and_a_multiple_of_its_step(available: int, most: int) -> None:
    assert most_frames(CARD, available) == most


@pytest.mark.parametrize(
    ("frames", "fps", "window"),
    [
        (567, 25.0, Window(0, 2, 17)),
        (17, 24.0, Window(0, 1, 17)),
        (30, 60.0, Window(0, 1, 17)),  # a stride of 4 would need 65 frames
        (500, 60.0, Window(0, 4, 17)),
        (5000, 1000.0, Window(0, MAX_STRIDE, 17)),
        (4, 24.0, Window(0, 1, 1)),
    ],
)
def test_the_suggested_window_takes_about_a_second(frames: int, fps: float, window: Window) -> None:
    assert suggested_window(video(frames, fps), CARD) == window


def test_what_is_given_stays_and_the_rest_fits_it() -> None:
    long = video(100, 60.0)
    assert suggested_window(long, CARD, count=5) == Window(0, 15, 5)
    assert suggested_window(long, CARD, start=60) == Window(60, 2, 17)
    assert suggested_window(long, CARD, stride=10) == Window(0, 10, 9)
    assert suggested_window(long, CARD, start=90) == Window(90, 1, 9)
    assert suggested_window(long, CARD, start=1, stride=2, count=3) == Window(1, 2, 3)


def test_a_suggestion_always_lies_inside_the_video() -> None:
    any_count = dataclasses.replace(CARD, frame_step=1)
    for card in (CARD, any_count):
        for frames in range(1, 70):
            for start in (None, 0, frames // 2, frames - 1):
                for stride in (None, 1, 3):
                    window = suggested_window(video(frames), card, start=start, stride=stride)
                    assert window.last < frames
                    assert window.count >= 1


@pytest.mark.parametrize("given", [{"start": 99}, {"start": -1}, {"stride": 0}, {"count": 0}])
def test_a_window_that_cannot_be_is_left_for_the_clip_to_refuse(given: dict[str, int]) -> None:
    window = suggested_window(video(20), CARD, **given)
    assert all(getattr(window, name) == value for name, value in given.items())
