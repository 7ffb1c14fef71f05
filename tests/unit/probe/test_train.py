"""Probes trained on prepared scenes: what resumes, what is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from still_backbone import CHANNELS, examples, run

from explorer.data.readers.prepared import Prepared
from explorer.errors import Cancelled, ProbeError
from explorer.probe.checkpoint import choose_probe, find_probe, load_probe
from explorer.probe.examples import collate
from explorer.probe.model import Probe
from explorer.probe.train import PROBES, Options, rate_at, scenes_of_step, train, validate

pytestmark = pytest.mark.usefixtures("one_thread")


def test_each_scene_comes_once_an_epoch_in_an_order_of_its_own() -> None:
    names = [f"s{i}" for i in range(7)]
    drawn = [each for step in range(7) for each in scenes_of_step(names, step, batch=3, seed=0)]
    epochs = [[scene for scene, epoch in drawn if epoch == e] for e in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert drawn != [e for step in range(7) for e in scenes_of_step(names, step, batch=3, seed=1)]


def test_the_rate_rises_and_falls() -> None:
    rates = [rate_at(step, 150, 1e-3) for step in range(150)]
    assert rates[0] == pytest.approx(1e-3 / 20)
    assert max(rates) == rates[20] == pytest.approx(1e-3)
    assert rates[19] <= rates[20]
    assert rates[-1] < 2e-6


def test_the_loss_falls_and_the_probe_is_written_with_its_split(
    store: Prepared, tmp_path: Path
) -> None:
    card, losses, (_, held_out) = run(store, tmp_path, "probes")
    steps = [entry["loss"] for entry in losses if "loss" in entry]
    assert len(steps) == card.steps == 14
    assert np.mean(steps[-4:]) < 0.8 * np.mean(steps[:4]), steps
    assert card.metrics["validation_clips"] == len(held_out)
    again = find_probe("still", 1, 0.3, root=tmp_path / "probes")
    assert again is not None
    assert again.split == store.split.reference
    assert again.data["steps"] == 14
    probe = load_probe(again, backbone_hash="still-1")
    measured = validate(probe, held_out, batch=2, device="cpu")
    assert measured["validation_total"] == pytest.approx(card.metrics["validation_total"], rel=0.02)
    assert not list((tmp_path / "probes" / "training").iterdir())


def test_a_stopped_run_goes_on_as_if_it_had_not_been(store: Prepared, tmp_path: Path) -> None:
    sides = [examples(store, side, tmp_path / "features") for side in ("train", "test")]
    options = Options(steps=5, batch=2, save_every=100)
    data = {"split": store.split.reference}
    whole = train(*sides, tmp_path / "whole", options, data=data)
    seen: list[Any] = []
    with pytest.raises(Cancelled):
        train(
            *sides, tmp_path / "parts", options, data=data, on_step=seen.append,
            should_stop=lambda: len(seen) == 3,
        )  # fmt: skip
    assert find_probe("still", 1, 0.3, root=tmp_path / "parts") is None
    with pytest.raises(ProbeError, match="an unfinished run with other options"):
        train(*sides, tmp_path / "parts", replace(options, seed=1), data=data)
    resumed = train(*sides, tmp_path / "parts", options, data=data, on_step=seen.append)
    assert [entry["step"] for entry in seen if "loss" in entry] == list(range(1, 6))
    assert resumed.sha256 == whole.sha256
    assert resumed.metrics == whole.metrics


def test_a_damaged_state_is_named(store: Prepared, tmp_path: Path) -> None:
    sides = [examples(store, side, tmp_path / "features") for side in ("train", "test")]
    options = Options(steps=3, batch=1)
    with pytest.raises(Cancelled):
        train(*sides, tmp_path / "p", options, data={}, should_stop=lambda: True)
    state = next((tmp_path / "p" / "training").rglob("state.json"))
    state.write_text("{")
    with pytest.raises(ProbeError, match="is damaged"):
        train(*sides, tmp_path / "p", options, data={})


def test_numbers_that_are_no_loss_end_the_run(store: Prepared, tmp_path: Path) -> None:
    sides = [examples(store, side, tmp_path / "features") for side in ("train", "test")]
    with pytest.raises(ProbeError, match="the loss of step .* lower --rate"):
        train(*sides, tmp_path / "p", Options(steps=30, batch=1, rate=1e9), data={})


@pytest.mark.parametrize("wrong", [{"probe": "huge"}, {"steps": 0}, {"batch": 0}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProbeError):
        Options(**wrong)


def test_a_card_of_another_cell_is_refused(store: Prepared, tmp_path: Path) -> None:
    card, _, _ = run(store, tmp_path, "probes", steps=1)
    with pytest.raises(ProbeError, match=r"reads still layer 1 sigma 0.3, not still layer 0"):
        choose_probe(card.weights, "still", 0, 0.3)
    assert choose_probe(tmp_path / "probes", "still", 0, 0.3) is None


def test_the_published_probe_is_trained_with_the_published_loss(
    store: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L_pmap + L_dmap + L_cam of arXiv 2512.19949, means over all pixels, nothing for confidence.

    Its batch has holes and confidences beyond 1, so every other reading gives another number.
    """
    small = PROBES["compact"][0]
    monkeypatch.setitem(PROBES, "vidfm3d", (small, PROBES["vidfm3d"][1]))
    sides = [examples(store, side, tmp_path / "features") for side in ("train", "test")]
    seen: list[dict[str, Any]] = []
    options = Options(probe="vidfm3d", steps=1, batch=2, rate=1e-9)
    card = train(*sides, tmp_path / "probes", options, data={}, on_step=seen.append)
    torch.manual_seed(options.seed)
    probe = Probe(small(CHANNELS)).eval()
    batch = [sides[1].fixed(index) for index in range(len(sides[1]))]
    features, targets = collate(batch, "cpu")
    with torch.no_grad():
        output = probe(features, size=(8, 12))
    confidence, valid = targets.weight, targets.weight > 0
    assert not valid.all()
    ours, theirs = (
        each / (torch.where(valid, each.norm(dim=-1), 0).sum((1, 2, 3)) / valid.sum((1, 2, 3)))
        [:, None, None, None, None] for each in (output.points, targets.points)
    )  # fmt: skip
    points = (confidence * (ours - theirs).norm(dim=-1)).mean()
    depth = (confidence * (output.depth - targets.depth).abs()).mean()
    passes = output.pose_encodings
    camera = sum(
        0.6 ** (len(passes) - 1 - k) / len(passes) * weight
        * F.huber_loss(each[..., part], targets.pose_encoding[..., part])
        for k, each in enumerate(passes)
        for part, weight in ((slice(0, 3), 1), (slice(3, 7), 1), (slice(7, 9), 0.5))
    )  # fmt: skip
    expected = float(points + depth + camera)
    assert card.metrics["validation_total"] == pytest.approx(expected, rel=1e-3)


def test_the_published_probe_can_be_named() -> None:
    config = PROBES["vidfm3d"][0](1536)
    assert (config.dim, config.output_size, config.in_channels) == (1024, (294, 518), 1536)
