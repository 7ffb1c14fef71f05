"""The legend of the viewer's colours, against the colours themselves."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest

from app import legend
from app.theme import CSS
from explorer.colors import DEPTH_MAP, PREDICTION, REFERENCE, colorize
from explorer.recording import DEPTH_RANGE, ERROR_RANGE


def test_the_legend_has_the_scales_of_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    said = legend.html()
    for ramp, (low, high) in (("ramp depth", DEPTH_RANGE), ("ramp", ERROR_RANGE)):
        assert re.search(rf">{low:g}<i class='{ramp}'></i>≥ {high:g}<", said)
    assert "aligned by one rotation, translation and scale" in said
    assert "unit: mean distance" in said
    monkeypatch.setattr(legend, "DEPTH_RANGE", (0.25, 7.5))
    assert ">0.25<i class='ramp depth'></i>≥ 7.5<" in legend.html()


def test_without_a_comparison_there_is_no_scale_of_errors() -> None:
    said = legend.html(error=False)
    assert "Depth" in said
    assert "Point error" not in said


def test_an_empty_side_of_the_viewer_has_its_reason_below() -> None:
    said = legend.html(error=False, no_prediction="no <probe>", reference="no parallax")
    assert "<b>Prediction</b><small>no &lt;probe&gt;</small>" in said
    assert "<b>Reference</b><small>no parallax</small>" in said
    assert "<b>Reference</b>" not in legend.html()


def bar(ramp: str) -> np.ndarray:
    """(N, 3) colours at even steps of a colour bar of the style sheet."""
    found = re.search(rf"^{re.escape(ramp)} {{[^}}]*linear-gradient\(90deg, ([^)]*)\)", CSS, re.M)
    assert found is not None
    return np.array([list(bytes.fromhex(stop.strip(" #"))) for stop in found[1].split(",")], int)


def test_the_colour_bars_run_through_the_colours_of_the_pictures() -> None:
    shown = bar(".ramp")
    true = colorize(np.linspace(0.0, 1.0, len(shown))[None], low=0.0, high=1.0)[0].astype(int)
    assert np.abs(shown - true).max() <= 2
    shown = bar(".ramp.depth")
    steps = np.linspace(0, 255, len(shown)).round().astype(np.uint8)[None]
    named = getattr(cv2, f"COLORMAP_{DEPTH_MAP.upper()}")  # the viewer draws depth by this name
    assert np.abs(shown - cv2.applyColorMap(steps, named)[0, :, ::-1]).max() <= 2


def test_the_cameras_of_the_legend_have_the_colours_of_the_viewer() -> None:
    for name, color in (("prediction", PREDICTION), ("reference", REFERENCE)):
        asked = ", ".join(map(str, color))
        assert f".legend .{name} {{ border-color: rgb({asked});" in CSS
