"""The frames of a scene that a backbone sees."""

from __future__ import annotations

from dataclasses import replace

from explorer.backbones import registry
from explorer.probe.clip_window import frames_seen, window


def test_a_window_reaches_over_the_scene_or_says_how_far() -> None:
    toy = registry.card("toy-wan")
    cards = [replace(toy, max_frames=most, frame_step=step) for most, step in
             ((81, 4), (49, 4), (25, 1), (17, 4), (85, 6), (1, 1))]  # fmt: skip
    assert [window(card, 81) for card in cards] == [
        (1, 81), (2, 41), (4, 21), (5, 17), (1, 79), (80, 1),
    ]  # fmt: skip
    assert [frames_seen(card, 81) for card in cards] == [81, 81, 81, 81, 79, 1]
    assert window(cards[3], 81, stride=1) == (1, 17)
