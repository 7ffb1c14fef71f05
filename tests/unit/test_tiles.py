"""Where the pictures of a correspondence have their markers."""

from __future__ import annotations

import numpy as np

from explorer.colors import PREDICTION, REFERENCE
from explorer.correspondence import Correspondence, SlotMatch
from explorer.tiles import correspondence_tiles, heat_range

SIZE = (48, 64)


def match(slot: int, *, true: tuple[float, float] | None, picked: bool = False) -> SlotMatch:
    heat = np.zeros((3, 4), np.float32)
    heat[0, 0] = 1.0
    return SlotMatch(slot, slot, picked, heat, (20.5, 30.5), 0.9, true, "visible", None, None, None)


def centre(picture: np.ndarray, color: tuple[int, int, int]) -> tuple[float, float]:
    """Image point (x, y) amid all pixels of about this colour."""
    rows, columns = np.nonzero(np.abs(picture.astype(int) - color).max(axis=2) < 25)
    return (
        (int(columns.min()) + int(columns.max()) + 1) / 2,
        (int(rows.min()) + int(rows.max()) + 1) / 2,
    )


def test_markers_are_at_the_best_and_the_true_match_of_a_tile_that_is_larger_than_its_frame() -> (
    None
):
    matches = (
        match(0, true=(8.5, 9.5), picked=True),
        match(1, true=(50.5, 14.5)),
        match(2, true=None),
    )
    found = Correspondence(40.5, 12.5, 0, 0, (0, 2), SIZE, matches)
    frames = np.full((3, *SIZE, 3), 100, np.uint8)
    picked, seen, unknown = correspondence_tiles(frames, found, scale=3)
    assert picked.shape == seen.shape == unknown.shape == (144, 192, 3)
    for tile in (seen, unknown):
        np.testing.assert_allclose(centre(tile, PREDICTION), (61.5, 91.5), atol=1)
    np.testing.assert_allclose(centre(seen, REFERENCE), (151.5, 43.5), atol=1)
    np.testing.assert_allclose(centre(picked, PREDICTION), (121.5, 37.5), atol=1)
    np.testing.assert_allclose(centre(picked, (255, 255, 255)), (121.5, 37.5), atol=1)
    green = np.abs(unknown.astype(int) - REFERENCE).max(axis=2) < 25
    assert not green.any(), "where the truth is not known there is none"
    # The hot token is the upper left one; the picked tile has no heat.
    assert np.ptp(seen[0, 0].astype(int)) > 40
    assert np.ptp(picked[0, 0].astype(int)) == 0


def test_one_colour_scale_spans_all_tiles_from_the_median_up() -> None:
    heats = [np.array([each], np.float32) for each in ([0.0, 0.2, 0.3], [0.5, 0.9, 1.0])]
    np.testing.assert_allclose(heat_range(heats), (0.4, 1.0))
    assert heat_range([]) == (-1.0, 1.0)
