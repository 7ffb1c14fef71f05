"""The metrics pane and the layer x sigma map."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from fake_looks import BACKBONE, estimate, features

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
    assert "nothing moves:" not in said  # of this look, which needs one too
    found.note = "no reference: too little parallax"
    assert "errors need one: too little parallax." in metrics_panel.show(found)


def test_metrics_say_what_to_keep_in_mind_about_the_reference(no_probes: None) -> None:
    found = Look("id", LookRequest("clip.mp4", "x", 1, 0.3))
    found.features, found.summary = features(), {"point_error": 0.1234}
    found.reference = estimate()
    assert "<p class='note'>" not in metrics_panel.show(found)
    found.note = "the reference toy-vggt is a toy estimate, not ground truth; colmap: <none>"
    said = metrics_panel.show(found)
    assert f"<p class='note'>{escape(found.note)}</p>" in said
    assert "There is no reference" not in said


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


def test_the_correspondence_error_has_the_nothing_moves_control_beside_it(no_probes: None) -> None:
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


def evaluation(folder: Path, cards: list[ProbeCard], values: dict[str, list[float]]) -> None:
    """An evaluation of these probes, point errors of each clip by the probe's hash."""
    cells = [
        {
            **{name: getattr(each, name) for name in ("backbone", "layer", "sigma")},
            "probe": each.sha256,
            "metrics": {
                "point_error": {"mean": fmean(values[each.sha256]), "low": 0.1, "high": 0.9}
            },
            "per_clip": {"point_error": values[each.sha256]},
        }
        for each in cards
    ]
    baselines = [
        {"id": "training mean per pixel", "metrics": {"point_error": {"mean": 0.52}}},
        {"id": "nothing moves", "metrics": {"correspondence_error_px": {"mean": 27.4}}},
    ]
    (folder / "probes").mkdir()
    text = json.dumps({"cells": cells, "baselines": baselines})
    (folder / "probes" / "evaluation.json").write_text(text)


@pytest.fixture
def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ProbeCard]:
    """Three probes: the second a little, the third clearly and always behind the first."""
    cards = [
        replace(card({}), backbone=BACKBONE, layer=layer, sha256=name)
        for layer, name in ((1, "best"), (3, "level"), (5, "behind"))
    ]
    first = [0.2, 0.3, 0.25, 0.35] * 4
    values = {
        "best": first,
        "level": [each + (0.05 if index % 2 else -0.044) for index, each in enumerate(first)],
        "behind": [each + 0.1 for each in first],
    }
    evaluation(tmp_path, cards, values)
    monkeypatch.setenv("EMERGE3D_ASSETS", str(tmp_path))
    probes = {BACKBONE: cards, "latent": [replace(cards[2], backbone="latent")]}
    for module in (map_panel, metrics_panel):
        monkeypatch.setattr(module, "list_probes", lambda backbone: probes.get(backbone, []))
    return cards


def test_the_map_marks_cells_that_cannot_be_told_from_the_best_one(
    evaluated: list[ProbeCard],
) -> None:
    shown = json.loads(map_panel.value(BACKBONE, "point_error", layer=1, sigma=0.3))
    trace = shown["figure"]["data"][0]
    assert trace["text"] == [["0.275"], ["≈ 0.278"], ["0.375"]]
    assert "test clips: layer 1, sigma 0.30. ≈ marks 1 of the 2 others" in shown["facts"][0]
    assert shown["facts"][0].startswith("Lowest mean on the ")
    assert not [fact for fact in shown["facts"] if "validation" in fact], "the cards have none"
    assert "the same 16 clips" in shown["facts"][0]
    assert "trained once" in shown["facts"][0]


def test_the_map_names_the_cell_that_validation_clips_choose_beside_that_of_the_lowest_mean(
    evaluated: list[ProbeCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = (0.3, 0.1, 0.2)
    cards = [
        replace(card, metrics={**card.metrics, "validation_points": loss})
        for card, loss in zip(evaluated, losses, strict=True)
    ]
    monkeypatch.setattr(map_panel, "list_probes", lambda backbone: cards)
    facts = json.loads(map_panel.value(BACKBONE, "point_error", layer=1, sigma=0.3))["facts"]
    assert "layer 1, sigma 0.30." in facts[0]
    assert facts[1].startswith("Chosen on validation clips")
    assert facts[1].endswith(f": layer {cards[1].layer}, sigma {cards[1].sigma:.2f}.")
    shown = json.loads(map_panel.value(BACKBONE, "auc30", layer=1, sigma=0.3))
    assert not [fact for fact in shown["facts"] if fact.startswith("Lowest")]


def test_the_map_shows_intervals_and_differences_under_the_pointer(
    evaluated: list[ProbeCard],
) -> None:
    shown = json.loads(map_panel.value(BACKBONE, "point_error", layer=1, sigma=0.3))
    best, level, behind = (row[0] for row in shown["figure"]["data"][0]["hovertext"])
    assert best == " [0.100, 0.900]"
    found = re.fullmatch(r" \[0\.100, 0\.900\]<br>minus the best: \+0\.003 \[(\S+), (\S+)\]", level)
    assert found is not None
    assert float(found[1]) < 0 < float(found[2])
    assert behind.endswith("minus the best: +0.100 [+0.100, +0.100]")


def test_the_maps_colours_span_the_controls_which_the_bar_and_a_line_name(
    evaluated: list[ProbeCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_panel, "_controls", lambda *_: {"latent": 0.475, "rgb": 0.2})
    shown = json.loads(map_panel.value(BACKBONE, "point_error", layer=1, sigma=0.3))
    trace = shown["figure"]["data"][0]
    assert (trace["zmin"], trace["zmax"]) == (0.2, 0.475)
    assert trace["colorbar"]["ticktext"] == ["rgb", "0.275", "0.375", "latent"]
    assert shown["facts"][1] == (
        "Controls, each at its cell of the lowest mean: rgb 0.200, latent 0.475."
    )
    assert shown["facts"][2] == "Without any features: training mean per pixel 0.520."
    assert "earlier version of the world" in shown["facts"][3]
    pixels = json.loads(map_panel.value(BACKBONE, "correspondence_error_px", layer=1, sigma=0.3))
    assert "Without any features: nothing moves 27.4." in pixels["facts"]


def test_the_metrics_have_a_row_for_what_needs_no_features(
    evaluated: list[ProbeCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_panel, "find_probe", lambda *cell: evaluated[0])
    found = Look("id", LookRequest("clip.mp4", BACKBONE, 1, 0.3))
    found.features, found.summary = features(), {}
    said = metrics_panel.show(found)
    rows = {row.split("<small>")[0].split(">")[-1]: row for row in said.split("<tr")[2:]}
    assert "<td>0.520</td>" in rows["training mean per pixel"]
    assert "<td>27.4</td>" in rows["nothing moves"]
    assert "no features, held-out mean" in rows["nothing moves"]
    assert "<li><b>nothing moves</b>" in said
    assert "<li><b>training mean per pixel</b>" in said
    assert "earlier version of the world" in said
