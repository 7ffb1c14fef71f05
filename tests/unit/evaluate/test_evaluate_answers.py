"""The words of an evaluation, on made-up figures whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorer.evaluate.answers import NOT_AMONG, answers, render_answers
from explorer.evaluate.choice import default_clips, subset
from explorer.probe.checkpoint import ProbeCard

HARD = np.random.default_rng(0).uniform(0.8, 1.2, 20)


def cell(name: str, error: float, *, auc: float = 0.2, match: float = 10.0) -> dict[str, Any]:
    backbone, layer, sigma = name.split(":")
    values = {
        "point_error": (error * HARD).tolist(),
        "depth_error": (0.5 * error * HARD).tolist(),
        "auc30": (auc * HARD).tolist(),
        "correspondence_error_px": (match * HARD).tolist(),
        "pck": [0.5] * len(HARD),
    }
    return {
        "id": name, "backbone": backbone, "layer": int(layer), "sigma": float(sigma),
        "metrics": {"point_error": {"mean": error}}, "per_clip": values, "per_seed": [values],
        "ridge": None, "proxies": None,
    }  # fmt: skip


def ask(*cells: dict[str, Any], chosen: dict[str, str]) -> list[dict[str, Any]]:
    found = answers({"cells": list(cells), "chosen": {"cells": chosen}})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert len(found) == 6
    return found


def test_ratios_are_held_against_their_aims() -> None:
    cells = [
        cell("toy-wan:5:0.1", 0.2, auc=0.31),
        cell("random:5:0.1", 0.27),
        cell("latent:0:0.1", 0.22),
    ]
    chosen = {each["backbone"]: each["id"] for each in cells}
    random, latent, rgb, alone = ask(*cells, chosen=chosen)[0]["lines"]
    assert "ratio 0.74 [0.74, 0.74] (aim at most 0.8: reached)" in random
    assert "ratio 1.55 [1.55, 1.55] (aim at least 1.5: reached)" in random
    assert "ratio 0.91 [0.91, 0.91] (aim at most 0.85: missed)" in latent
    assert rgb == f"rgb: {NOT_AMONG}"
    assert alone == f"toy-image: {NOT_AMONG}"


def test_more_than_nothing_reaches_an_aim_that_nothing_cannot() -> None:
    cells = [cell("toy-wan:5:0.1", 0.2, auc=0.1), cell("random:5:0.1", 0.27, auc=0.0)]
    chosen = {each["backbone"]: each["id"] for each in cells}
    random = ask(*cells, chosen=chosen)[0]["lines"][0]
    assert random.endswith("(aim at least 1.5: reached)")
    assert "AUC@30 +0.1" in random
    cells[0]["per_seed"][0]["auc30"] = [0.0] * len(HARD)
    assert ask(*cells, chosen=chosen)[0]["lines"][0].endswith("(aim at least 1.5: missed)")


def test_the_peak_is_the_cell_of_validation_and_its_edges_are_named() -> None:
    grid = {(1, 0.0): 0.30, (1, 0.1): 0.28, (5, 0.0): 0.26, (5, 0.1): 0.24, (9, 0.1): 0.2}
    cells = [cell(f"toy-wan:{layer}:{sigma}", error) for (layer, sigma), error in grid.items()]
    lines = ask(*cells, chosen={"toy-wan": "toy-wan:5:0.1"})[1]["lines"]
    assert "lowest on these clips, which choose nothing: toy-wan:9:0.1" in lines[0]
    assert lines[1].startswith("against the first layer: toy-wan:5:0.1 - toy-wan:1:0.1")
    assert "-0.04" in lines[1]
    assert lines[2].startswith("against the last layer: toy-wan:5:0.1 - toy-wan:9:0.1")
    assert lines[3].startswith(
        "against the same layer without noise: toy-wan:5:0.1 - toy-wan:5:0.0"
    )
    edge = ask(*cells, chosen={"toy-wan": "toy-wan:9:0.1"})[1]["lines"]
    assert "the best cell is at the edge of the map: last layer" in edge
    assert f"same layer without noise: {NOT_AMONG}" in edge


def test_what_is_not_among_the_probes_is_said_and_not_left_out() -> None:
    found = ask(chosen={})
    assert found[0]["lines"] == found[1]["lines"] == [f"toy-wan: {NOT_AMONG}"]
    assert found[2]["lines"][0] == f"toy-wan-large, toy-wan: {NOT_AMONG}"
    assert found[3]["lines"][1] == f"toy-wan, toy-wan-1pct: {NOT_AMONG}"
    assert found[4]["lines"][0] == f"toy-vggt, toy-wan: {NOT_AMONG}"
    assert "fewer than 4 cells" in found[5]["lines"][0]
    assert render_answers(found).startswith("1. Does video training beat random weights")


def test_the_figure_that_ranks_cells_like_the_probe_comes_first() -> None:
    cells = [cell(f"toy-wan:{k}:0.1", 0.2 + 0.01 * k, match=30.0 - k) for k in range(5)]
    for k, each in enumerate(cells):
        each["proxies"] = {"per_clip": {"cycle_return_px": (HARD * (k % 2)).tolist()}}
    lines = ask(*cells, chosen={"toy-wan": "toy-wan:0:0.1"})[5]["lines"]
    assert lines[0].startswith("correspondence error: rank correlation -1.00 [-1.00, -1.00] over 5")
    assert lines[1].startswith("cycle_return_px: rank correlation +0.00")
    assert not any(line.startswith("PCK") for line in lines), "it is the same everywhere"
    assert "ridge readouts: none" in lines[-1]


def card(backbone: str, layer: int, sigma: float, loss: float | None) -> ProbeCard:
    metrics = {} if loss is None else {"validation_points": loss}
    return ProbeCard(
        backbone=backbone, backbone_hash="h", layer=layer, sigma=sigma, in_channels=1, config={},
        data={}, steps=1, seconds=0.0, metrics=metrics, sha256=f"{layer}{sigma}", trained=True,
        weights=Path("none"),
    )  # fmt: skip


def test_a_processor_judges_a_cross_through_the_best_cell_and_the_best_of_the_others() -> None:
    grid = [card("toy-wan", layer, s, layer + s) for layer in (1, 3, 5) for s in (0.1, 0.3, 0.5)]
    others = [card("random", 1, 0.1, 0.4), card("random", 3, 0.1, 0.3)]
    unknown = [card("rgb", 0, 0.0, None)]
    found = subset([*grid, *others, *unknown])
    places = [(each.backbone, each.layer, each.sigma) for each in found]
    assert places == [
        ("toy-wan", 1, 0.1), ("toy-wan", 1, 0.3), ("toy-wan", 1, 0.5), ("toy-wan", 3, 0.1),
        ("toy-wan", 5, 0.1), ("random", 3, 0.1), ("rgb", 0, 0.0),
    ]  # fmt: skip


@pytest.mark.parametrize(("device", "clips"), [("cpu", 16), ("cuda:0", 500)])
def test_a_gpu_takes_every_scene(device: str, clips: int) -> None:
    assert default_clips(device) == clips
