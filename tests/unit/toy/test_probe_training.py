"""A whole run of the probe grid's training, on a pool that takes no rendering."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import made_up_pool, make_small

from explorer.assets import assets_root
from explorer.data.world.spec import WORLD_VERSION
from explorer.probe.checkpoint import list_probes, list_seeds
from explorer.toy import train_group, train_probes
from explorer.toy.cells import full_grid
from explorer.toy.shards import load_shards
from explorer.toy.ship_probes import ship_probes


@pytest.fixture(autouse=True)
def small_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


def run(out: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> dict[str, Any]:
    model = str(assets_root() / "models" / "toy-wan")
    monkeypatch.setattr(train_probes, "make_pool", made_up_pool)
    words = ["--vae", model, "--transformer", model, "--out", str(out), "--pool", "4"]
    words += ["--held-out", "1", "--batch", "1", "--rate", "0.001", *more]
    monkeypatch.setattr(sys, "argv", ["train_probes", *words])
    train_probes.main()
    card: dict[str, Any] = json.loads((out / "probes0.json").read_text())
    return card


CELLS = ("--cells", "latent:0:0.1,rgb:0:0.0")


def test_a_run_can_be_resumed_and_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path / "first", monkeypatch, *CELLS, "--seconds", "1")
    assert first["finished"]
    assert first["steps"] >= 1
    resume = ("--seconds", "1", "--resume", str(tmp_path / "first"))
    second = run(tmp_path / "second", monkeypatch, *CELLS, *resume)
    assert second["steps"] > first["steps"]
    assert second["history"][: len(first["history"])] == first["history"]
    curve = second["cells"]["rgb:0:0.0"]["curve"]
    assert [point[0] for point in curve] == [first["steps"], second["steps"]]
    before, _ = load_shards(tmp_path / "first", "probes0")
    after, _ = load_shards(tmp_path / "second", "probes0")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    names = ship_probes([tmp_path / "second"], tmp_path / "probes")
    assert sorted(names) == ["latent:0:0.1", "rgb:0:0.0"]
    card = json.loads((tmp_path / "probes" / "rgb" / "L00_S0.00.json").read_text())
    assert card["data"]["world_version"] == WORLD_VERSION
    assert card["data"]["camera_weight"] == 5.0
    assert card["metrics"].keys() >= {"validation_points", "validation_depth", "validation_total"}

    unfinished = tmp_path / "second" / "probes0.json"
    unfinished.write_text(json.dumps({**second, "finished": False}))
    with pytest.raises(ValueError, match="unfinished"):
        ship_probes([tmp_path / "second"], tmp_path / "probes")


def test_cells_of_fixed_steps_are_the_same_in_one_run_and_in_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ("--steps", "2", "--validate-every", "1", "--seconds", "999")
    whole = run(tmp_path / "whole", monkeypatch, *CELLS, *steps)
    assert whole["left"] == []
    assert [point[0] for point in whole["cells"]["rgb:0:0.0"]["curve"]] == [1, 2]
    first = run(tmp_path / "first", monkeypatch, *CELLS, *steps, "--part", "1/2")
    assert list(first["cells"]) == ["latent:0:0.1"]
    second = run(
        tmp_path / "second", monkeypatch, *CELLS, *steps, "--done", str(tmp_path / "first")
    )
    assert list(second["cells"]) == ["rgb:0:0.0"]
    expected, _ = load_shards(tmp_path / "whole", "probes0")
    found = {}
    for part in ("first", "second"):
        found |= load_shards(tmp_path / part, "probes0")[0]
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())

    runs = [tmp_path / "first", tmp_path / "second"]
    names = ship_probes(runs, tmp_path / "probes", storage="int8")
    assert names == ["latent:0:0.1", "rgb:0:0.0"]
    ship_probes(runs[:1], tmp_path / "shipped")
    later = run(
        tmp_path / "later", monkeypatch, *CELLS, *steps, "--done", str(tmp_path / "shipped")
    )
    assert list(later["cells"]) == ["rgb:0:0.0"]
    ship_probes([tmp_path / "later"], tmp_path / "both", beside=tmp_path / "shipped")
    assert [card.backbone for card in list_probes(root=tmp_path / "both")] == ["latent", "rgb"]
    with pytest.raises(ValueError, match="was there before"):
        ship_probes(runs, tmp_path / "twice", beside=tmp_path / "shipped")
    card = tmp_path / "shipped" / "latent" / "L00_S0.10.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "backbone_hash": "other"}))
    with pytest.raises(ValueError, match="trained on other weights"):
        ship_probes([tmp_path / "later"], tmp_path / "again", beside=tmp_path / "shipped")
    with pytest.raises(ValueError, match="leave one out"):
        ship_probes([*runs, tmp_path / "whole"], tmp_path / "probes")
    other = json.loads((tmp_path / "second" / "probes0.json").read_text())
    for field, value in (("steps", 4), ("data", {**other["data"], "clips": 5})):
        (tmp_path / "second" / "probes0.json").write_text(json.dumps({**other, field: value}))
        with pytest.raises(ValueError, match=f"cannot be compared: {field} is"):
            ship_probes(runs, tmp_path / "probes")
    with pytest.raises(ValueError, match="cannot be compared: data"):
        run(tmp_path / "third", monkeypatch, *CELLS, *steps, "--done", str(tmp_path / "second"))


def test_further_seeds_of_the_best_cells_lie_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ("--steps", "2", "--seconds", "999")
    first = run(tmp_path / "first", monkeypatch, *CELLS, *steps)
    best = ("--grid", "best", "--of", str(tmp_path / "first"), "--seed", "1")
    second = run(tmp_path / "second", monkeypatch, *best, *steps)
    assert set(second["cells"]) == set(first["cells"])
    runs = [tmp_path / "first", tmp_path / "second"]
    assert "rgb:0:0.0 seed 1" in ship_probes(runs, tmp_path / "probes")
    (card,) = list_probes("rgb", root=tmp_path / "probes")
    assert card.data["seed"] == 0
    (other,) = list_seeds(card)
    assert (other.data["seed"], other.weights.name) == (1, "L00_S0.00_1.safetensors")
    assert other.sha256 != card.sha256


def test_of_other_models_only_the_best_cells_are_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = "latent:0:0.1,latent:0:0.3,rgb:0:0.0"
    card = run(tmp_path / "run", monkeypatch, "--cells", cells, "--steps", "2", "--seconds", "999")
    losses = {name: cell["metrics"]["validation_points"] for name, cell in card["cells"].items()}
    worse = max(list(losses)[:2], key=losses.__getitem__)
    names = ship_probes([tmp_path / "run"], tmp_path / "probes", best=1)
    assert set(names) == set(losses) - {worse}


def test_a_run_that_cannot_finish_one_level_says_so_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_group, "MEASURED", 2)
    with pytest.raises(ValueError, match="fewer --steps"):
        run(tmp_path, monkeypatch, *CELLS, "--steps", "9999", "--seconds", "20")
    with pytest.raises(SystemExit):
        run(tmp_path, monkeypatch, *CELLS, "--steps", "9", "--resume", str(tmp_path))


def test_every_clip_is_seen_once_before_any_is_seen_again() -> None:
    batches = train_group.drawn(6, 4, seed=3)
    seen = torch.cat([next(batches) for _ in range(3)])
    assert sorted(seen[:6].tolist()) == sorted(seen[6:].tolist()) == list(range(6))
    again = train_group.drawn(6, 4, seed=3)
    assert torch.equal(next(again), seen[:4])


def test_cells_of_one_noise_level_of_a_model_are_trained_together() -> None:
    groups = train_group.same_level(full_grid())
    assert [len(group) for group in groups] == [5] * 7
