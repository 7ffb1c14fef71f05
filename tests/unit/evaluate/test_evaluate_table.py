from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorer.errors import ProbeError
from explorer.evaluate.table import (
    best_cell,
    chosen_by,
    differences,
    interval_note,
    summarize,
)
from explorer.probe.checkpoint import ProbeCard


def card(layer: int, metrics: dict[str, Any]) -> ProbeCard:
    return ProbeCard(
        backbone="b",
        backbone_hash="h",
        layer=layer,
        sigma=0.3,
        in_channels=1,
        config={},
        data={},
        steps=1,
        seconds=0.0,
        metrics=metrics,
        sha256=str(layer),
        trained=True,
        weights=Path("none"),
    )


def test_the_best_cell_is_chosen_by_validation_and_never_by_test_figures() -> None:
    cards = [
        card(1, {"validation_points": 0.3, "point_error": 0.1, "validation_total": 9.0}),
        card(2, {"validation_points": 0.2, "point_error": 0.9, "validation_total": 9.5}),
    ]
    assert chosen_by(cards) == "validation_points"
    assert best_cell(cards).layer == 2


def test_a_figure_that_one_card_lacks_chooses_nothing() -> None:
    cards = [
        card(1, {"validation_points": 0.1, "validation_total": 2.0}),
        card(2, {"validation_points": float("nan"), "validation_total": {"mean": 1.0}}),
    ]
    assert chosen_by(cards) == "validation_total"
    assert best_cell(cards).layer == 2


def test_without_validation_figures_no_cell_is_best() -> None:
    with pytest.raises(ProbeError, match="validation"):
        best_cell([card(1, {"point_error": 0.1})])
    with pytest.raises(ProbeError, match="among 0 probes"):
        best_cell([])


def test_a_lower_error_is_a_negative_difference_and_a_gain() -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(1, 3, 20)
    worse = {"point_error": hard.tolist(), "pck": (hard / 10).tolist()}
    better = {"point_error": (0.8 * hard).tolist(), "pck": (hard / 8).tolist()}
    point, pck = differences("good", better, "bad", worse)
    assert (point["metric"], pck["metric"]) == ("point_error", "pck")
    assert point["mean"] == pytest.approx(-0.2 * hard.mean())
    assert point["low"] <= point["mean"] <= point["high"] < 0
    assert point["excludes_zero"]
    assert point["a_is_better"]
    assert point["gain"] == pytest.approx(0.2)
    assert pck["low"] > 0
    assert pck["a_is_better"]
    assert pck["gain"] == pytest.approx(0.25)
    back = differences("bad", worse, "good", better)[0]
    assert (back["mean"], back["a_is_better"]) == (-point["mean"], False)


def test_clips_that_only_one_side_has_are_left_out_of_the_pairs() -> None:
    first = {"auc30": [0.5, None, 0.7, 0.9], "pck": [None, None, None, 0.1]}
    second = {"auc30": [0.4, 0.1, None, 0.6], "pck": [0.1, 0.1, 0.1, 0.1]}
    (found,) = differences("a", first, "b", second)
    assert found["clips"] == 2
    assert found["mean"] == pytest.approx(0.2)


def test_means_say_over_how_many_clips() -> None:
    found = summarize({"pck": [0.2, None, 0.4], "auc5": [None], "auc30": [0.5, None]})
    pck = found["pck"]
    assert pck is not None
    assert pck["mean"] == pytest.approx(0.3)
    assert pck["count"] == 2
    assert found["auc5"] is None
    assert found["auc30"] == {"mean": 0.5, "low": None, "high": None, "count": 1}


def test_a_single_clip_is_given_as_the_reason_for_missing_intervals() -> None:
    one = summarize({"pck": [0.2], "point_error": [0.3], "auc5": [None]})
    said = interval_note([one, one])
    assert said is not None
    assert said.startswith("No intervals and no differences: they are taken over clips")
    assert said.endswith("Give --clips 2 or more.")
    some = summarize({"pck": [0.2, 0.3], "auc30": [None, 0.5]})
    said = interval_note([one], advice="There is no other.")
    assert said is not None
    assert said.endswith("only one clip has a value. There is no other.")
    said = interval_note([some])
    assert said is not None
    assert "for AUC@30 somewhere:" in said
    assert interval_note([summarize({"pck": [0.2, 0.3], "auc30": [None, None]})]) is None
