"""`emerge3d train` and `emerge3d eval --data`, from scenes to figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prepared_samples import FRAMES, SIZE
from still_backbone import Still, examples, run

from explorer.backbones._options import Target
from explorer.cli import main
from explorer.data.dataset import open_dataset
from explorer.data.prepared.make import prepare
from explorer.data.prepared.manifest import Settings
from explorer.data.readers.prepared import Prepared, open_prepared
from explorer.errors import NoReconstruction
from explorer.evaluate.prepared import evaluate_prepared
from explorer.probe.checkpoint import choose_probe
from explorer.probe.examples import Examples
from explorer.probe.train import Options, train
from explorer.probe.training_split import check_held_out, keep_split, training_split

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_command_trains_and_a_look_finds_the_probe(
    store: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("EMERGE3D_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "probes"
    options = ["--backbone", "still", "--layer", "1", "--sigma", "0.3", "--device", "cpu"]
    arguments = ["train", "--data", str(store.root), "--out", str(out), *options]
    assert main([*arguments, "--steps", "2", "--batch", "2", "--json"]) == 0
    printed, said = capsys.readouterr()
    assert json.loads(printed)["data"]["split"]["sha256"] == store.split.sha256
    assert "step 1/2 loss " in said
    assert "step 2/2 validation total " in said
    assert "features 1/" in said
    card = choose_probe(out, "still", 1, 0.3)
    assert card is not None
    assert training_split(card) == store.split
    assert check_held_out([card], store.split.sides["test"]) == []
    scene = store.side("test")[0].name
    look = ["look", f"{store.root}::{scene}", *options, "--json"]
    assert main([*look, "--count", "9", "--probe", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["provenance"]["probe"]["sha256"] == card.sha256
    assert found["point_error"] > 0
    assert main([*look, "--count", "9", "--probe", str(card.weights)]) == 0
    capsys.readouterr()
    assert main([*look, "--count", "9"]) == 0
    assert json.loads(capsys.readouterr().out)["point_error"] is None


def test_the_command_evaluates_on_the_held_out_side_only(
    store: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("EMERGE3D_CACHE", str(tmp_path / "cache"))
    run(store, tmp_path, "probes", steps=1, side="test")
    keep_split(tmp_path / "probes", store.split)
    options = ["--probe", str(tmp_path / "probes"), "--device", "cpu"]
    assert main(["eval", "--data", str(store.root), *options, "--json"]) == 0
    printed, said = capsys.readouterr()
    assert said.splitlines() == ["still:1:0.3, 2 scenes", "features 1/2 s0", "features 2/2 s1"]
    found = json.loads(printed)
    assert found["scenes"] == [scene.name for scene in store.side("test")] == ["s0", "s1"]
    assert found["split_file"] == store.split.reference
    (cell,) = found["cells"]
    assert cell["id"] == "still:1:0.3"
    assert cell["training_split"] == store.split.reference
    for name in ("point_error", "depth_error", "auc30"):
        for column in (name, f"published_{name}"):
            assert len(cell["per_clip"][column]) == 2, column
            assert cell["metrics"][column]["mean"] >= 0
    assert list(found["frames"]) == found["scenes"]
    assert all(each[0] == 0 for each in found["frames"].values())
    assert main(["eval", "--data", str(store.root), *options, "--side", "validation"]) == 2
    assert "no scene of" in capsys.readouterr().err
    for extra in (["--part", "1/2"], ["--proxies"], ["--join", "x"]):
        assert main(["eval", "--data", str(store.root), *options, *extra]) == 2
        assert "do not go with --data" in capsys.readouterr().err
    assert main(["eval", "--side", "test"]) == 2
    assert "belong to --data" in capsys.readouterr().err
    assert main(["eval", "--data", str(store.root), *options]) == 0
    out = capsys.readouterr().out
    assert "| still:1:0.3 |" in out
    assert "the choice among cells has seen these scenes" in out
    assert "still:1:0.3 as the paper computes it: point error" in out

    settings = Settings("tiny", "tiny-dense", frames=FRAMES, size=SIZE)
    folder = tmp_path / "data"
    prepare(open_dataset("tiny", folder), tmp_path / "other", settings, split_seed=3)
    assert [scene.name for scene in open_prepared(tmp_path / "other").side("test")] == ["s2"]
    assert main(["eval", "--data", str(tmp_path / "other"), *options]) == 2
    err = capsys.readouterr().err
    assert "the training of L01_S0.30 of still and this test share scenes" in err


def test_scenes_that_a_cell_lacks_keep_their_place_among_the_pairs(
    store: Prepared, coarse: Still, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = []
    for name in ("still", "coarse"):
        sides = [examples(store, side, tmp_path / "features", name) for side in ("train", "test")]
        data = {"split": store.split.reference, "dtype": "bfloat16"}
        options = Options(steps=1, batch=1)
        cards.append(train(*sides, tmp_path / "probes", options, data=data))
    keep_split(tmp_path / "probes", store.split)
    asked = []
    real = Examples._example

    def lacking(self: Examples, scene: Any, should_stop: Any) -> Any:
        asked.append((self.cell.backbone, self.cell.target.dtype))
        if (self.cell.backbone, scene.name) == ("coarse", "s0"):
            raise NoReconstruction("nothing here")
        return real(self, scene, should_stop)

    monkeypatch.setattr(Examples, "_example", lacking)
    found = evaluate_prepared(cards, store, target=Target(), features=tmp_path / "features")
    first, second = found["cells"]
    assert found["scenes"] == first["scenes"] == ["s0", "s1"]
    assert second["scenes"] == ["s1"]
    assert second["per_clip"]["point_error"][0] is None
    assert None not in [first["per_clip"]["point_error"][1], second["per_clip"]["point_error"][1]]
    assert "coarse:1:0.3: s0 left out: nothing here" in found["notes"]
    assert set(asked) == {("still", "bfloat16"), ("coarse", "bfloat16")}  # as they were trained
