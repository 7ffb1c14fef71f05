"""The metrics pane and the layer x sigma map."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_looks import BACKBONE, features

from app import map_panel, metrics_panel
from app.looks import Look
from explorer.look import LookRequest
from explorer.probe.checkpoint import ProbeCard


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
        "correspondence": {"error_px": 66.35, "nothing_moves_px": 20.08},
    }
    said = metrics_panel.show(found)
    assert re.search(r"<td>66\.3 <small[^>]*>nothing moves: 20\.1</small></td>", said)
    assert "<li><b>nothing moves</b> the correspondence error of answering" in said


def test_one_name_for_the_correspondence_error_is_used_on_the_whole_page() -> None:
    labels = [label for label, key in map_panel.metrics() if key == "correspondence_error_px"]
    assert labels == ["correspondence error, px ↓"]
    text = " ".join(path.read_text() for path in Path(metrics_panel.__file__).parent.rglob("*.py"))
    assert not re.search(r"match(ing)? error", text, re.IGNORECASE)


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
