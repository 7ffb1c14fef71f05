from __future__ import annotations

import numpy as np

from explorer.colors import (
    PREDICTION,
    REFERENCE,
    UNKNOWN,
    colorize,
    draw_match,
    heat_overlay,
)
from explorer.correspondence import upsample_heat

LUMA = np.array([0.299, 0.587, 0.114])
GREY = np.full((48, 64, 3), 100, dtype=np.uint8)


def test_higher_is_brighter_so_that_colours_need_no_colour_vision_and_unknown_is_grey() -> None:
    luma = colorize(np.linspace(0.0, 1.0, 33)[None], low=0.0, high=1.0)[0] @ LUMA
    assert (np.diff(luma) > 0).all()
    assert tuple(colorize(np.array([[np.nan]]), low=0.0, high=1.0)[0, 0]) == UNKNOWN


def test_prediction_and_reference_differ_without_red_or_without_green() -> None:
    orange, green = np.array(PREDICTION), np.array(REFERENCE)
    # Who lacks red or green cones tells these by blue, and by what the other two channels sum to.
    assert abs(int(orange[2]) - int(green[2])) > 60
    assert abs((orange - green) @ LUMA) > 30


def test_values_beyond_the_range_get_the_colours_of_its_ends() -> None:
    colours = colorize(np.array([[-5.0, 0.0, 1.0, 9.0]]), low=0.0, high=1.0)[0]
    assert np.array_equal(colours[0], colours[1])
    assert np.array_equal(colours[2], colours[3])


def test_the_overlay_colours_the_hot_token_and_leaves_the_picture_in_grey_at_the_cold_ones() -> (
    None
):
    heat = np.zeros((3, 4), dtype=np.float32)
    heat[2, 3] = 1.0
    colourful = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    drawn = heat_overlay(colourful, heat, low=0.0, high=1.0, dimmed=0.5)
    cold = drawn[:16, :16].astype(float)
    assert np.ptp(cold, axis=-1).max() == 0
    assert np.abs(cold[..., 0] - 0.5 * (colourful[:16, :16] @ LUMA)).max() <= 1
    assert drawn[-1, -1, 0].astype(int) - drawn[-1, -1, 2] > 40


def test_the_overlay_is_the_upsampled_heat_in_colours_over_the_picture() -> None:
    heat = np.random.default_rng(0).uniform(0.2, 0.9, (3, 4)).astype(np.float32)
    drawn = heat_overlay(GREY, heat, low=0.2, high=0.9, opacity=0.5, dimmed=1.0)
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
