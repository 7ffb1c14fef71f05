"""The legend of the viewer's colours, against the colours themselves."""

from __future__ import annotations

import re

import numpy as np
import pytest

from app import legend
from app.theme import CSS
from explorer.colors import PREDICTION, REFERENCE, colorize
from explorer.recording import DEPTH_RANGE, ERROR_RANGE


def test_the_legend_has_the_scales_of_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    said = legend.html()
    for low, high in (DEPTH_RANGE, ERROR_RANGE):
        assert re.search(rf">{low:g}<i class='ramp'></i>≥ {high:g}<", said)
    assert "Sim(3) alignment" in said
    assert "unit: mean distance" in said
    monkeypatch.setattr(legend, "DEPTH_RANGE", (0.25, 7.5))
    assert ">0.25<i class='ramp'></i>≥ 7.5<" in legend.html()


def test_without_a_comparison_there_is_no_scale_of_errors() -> None:
    said = legend.html(error=False)
    assert "Depth" in said
    assert "Point error" not in said


def test_the_colour_bar_runs_through_the_colours_of_the_pictures() -> None:
    gradient = re.search(r"\.ramp \{[^}]*linear-gradient\(90deg, ([^)]*)\)", CSS)
    assert gradient is not None
    stops = [bytes.fromhex(stop.strip(" #")) for stop in gradient[1].split(",")]
    shown = np.array([list(stop) for stop in stops], int)
    true = colorize(np.linspace(0.0, 1.0, len(stops))[None], low=0.0, high=1.0)[0].astype(int)
    assert np.abs(shown - true).max() <= 16


def test_the_cameras_of_the_legend_have_the_colours_of_the_viewer() -> None:
    for name, color in (("prediction", PREDICTION), ("reference", REFERENCE)):
        asked = ", ".join(map(str, color))
        assert f".legend .{name} {{ border-color: rgb({asked});" in CSS
