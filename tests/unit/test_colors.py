from __future__ import annotations

import numpy as np

from explorer.colors import (
    PREDICTION,
    UNKNOWN,
    colorize,
    draw_match,
    heat_overlay,
)
from explorer.correspondence import upsample_heat

GREY = np.full((48, 64, 3), 100, dtype=np.uint8)


def test_low_is_bluish_high_is_reddish_and_unknown_is_grey() -> None:
    red, _, blue = colorize(np.array([[0.0, 1.0, np.nan]]), low=0.0, high=1.0)[0].astype(int).T
    assert blue[0] > red[0]
    assert red[1] > blue[1]
    assert (red[2], blue[2]) == (UNKNOWN[0], UNKNOWN[2])


def test_values_beyond_the_range_get_the_colours_of_its_ends() -> None:
    colours = colorize(np.array([[-5.0, 0.0, 1.0, 9.0]]), low=0.0, high=1.0)[0]
    assert np.array_equal(colours[0], colours[1])
    assert np.array_equal(colours[2], colours[3])


def test_the_overlay_colours_the_hot_token_and_leaves_the_cold_ones() -> None:
    heat = np.zeros((3, 4), dtype=np.float32)
    heat[2, 3] = 1.0
    drawn = heat_overlay(GREY, heat, low=0.0, high=1.0)
    assert np.array_equal(drawn[:16, :16], GREY[:16, :16])
    assert np.abs(drawn[-1, -1].astype(int) - 100).max() > 40


def test_the_overlay_is_the_upsampled_heat_in_colours_over_the_picture() -> None:
    heat = np.random.default_rng(0).uniform(0.2, 0.9, (3, 4)).astype(np.float32)
    drawn = heat_overlay(GREY, heat, low=0.2, high=0.9, opacity=0.5)
    dense = upsample_heat(heat, (48, 64))
    share = 0.5 * (dense[..., None] - 0.2) / 0.7
    expected = GREY * (1 - share) + colorize(dense, low=0.2, high=0.9) * share
    assert np.abs(drawn - expected).max() <= 0.51


def test_a_match_is_an_orange_cross_and_the_truth_a_green_circle() -> None:
    drawn = draw_match(GREY, best=(20.5, 30.5), truth=(40.5, 10.5))
    assert np.allclose(drawn[30, 20], PREDICTION, atol=4)  # the line is antialiased
    around = drawn[10 - 6 : 10 + 7, 40 - 6 : 40 + 7].reshape(-1, 3)
    red, green, _ = around.astype(int).T
    assert (green - red > 60).any()
    assert np.array_equal(drawn[10, 40], GREY[0, 0])


def test_drawing_leaves_the_picture_itself_alone() -> None:
    before = GREY.copy()
    draw_match(GREY, best=(20.5, 30.5), truth=(40.5, 10.5))
    assert np.array_equal(GREY, before)
