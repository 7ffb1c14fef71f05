"""Probes trained on prepared scenes: what is computed once, what resumes, what is written."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import prepared_samples as samples
import pytest
import torch
import torch.nn.functional as F
from prepared_samples import FRAMES, SIZE

from explorer.backbones import loaded, registry
from explorer.backbones._options import Target
from explorer.backbones.base import Backbone, BackboneCard, slot_map
from explorer.cli import main
from explorer.data.dataset import open_dataset
from explorer.data.prepared.make import prepare
from explorer.data.prepared.manifest import Settings
from explorer.data.readers.prepared import Prepared, open_prepared
from explorer.errors import Cancelled, NoReconstruction, ProbeError
from explorer.evaluate.prepared import evaluate_prepared
from explorer.probe.checkpoint import choose_probe, find_probe, load_probe
from explorer.probe.examples import Cell, Examples, collate
from explorer.probe.model import Probe
from explorer.probe.train import PROBES, Options, rate_at, scenes_of_step, train, validate
from explorer.probe.training_split import check_held_out, keep_split, training_split
from explorer.store import Store

GRID, CHANNELS = (4, 6), 5
CARD = BackboneCard(
    id="still",
    title="Tokens of colours",
    kind="control",
    licence="none",
    layers=2,
    width=CHANNELS,
    input_size=(16, 24),
    max_frames=FRAMES,
    frame_step=4,
    token_grid=GRID,
    default_cell=(1, 0.3),
    uses_sigma=True,
    parameters=0,
    memory_bytes=0,
    note="",
)


class Still(Backbone):
    """Mean colours of the slots' frames, and where a token is."""

    @property
    def weights_hash(self) -> str:
        return "still-1"

    def timestep(self, sigma: float) -> tuple[float, int]:
        return 1000 * sigma, 0

    def extract(self, clip: Any, *, layers: Sequence[int], sigma: float, **_: Any) -> Any:
        self.calls += 1
        self.clip = clip
        frames = (
            clip.frames[slot_map(len(clip), self.card.frame_step)[1]].astype(np.float32) / 127.5 - 1
        )
        rows, columns = GRID
        height, width = clip.size
        blocks = frames.reshape(len(frames), rows, height // rows, columns, width // columns, 3)
        y, x = np.mgrid[:rows, :columns]
        place = np.broadcast_to(np.stack([y, x], -1) / 6.0, (len(frames), *GRID, 2))
        values = np.concatenate([blocks.mean((2, 4)), place], axis=-1).astype(np.float16)
        return self.features(
            dict.fromkeys(layers, values), clip, sigma=sigma, seed=0, provenance={}
        )


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> Still:
    registry.cards()
    backbone = Still(CARD)
    entry = registry.Entry(CARD, lambda card, target: backbone, None, None, None, None)
    monkeypatch.setitem(registry._entries, "still", entry)
    monkeypatch.setattr(loaded, "models", {})
    small = replace(
        PROBES["compact"][0](CHANNELS), dim=16, heads=2, dpt_dim=8, dpt_hidden=8, camera_dim=16,
        dpt_stage_channels=(8, 8, 8, 8), camera_depth=1, camera_heads=2, grid=GRID,
        output_size=(8, 12),
    )  # fmt: skip
    monkeypatch.setitem(
        PROBES, "compact", (lambda channels: replace(small, in_channels=channels),
                            PROBES["compact"][1]),
    )  # fmt: skip
    return backbone


@pytest.fixture
def store(still: Still, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Prepared:
    samples.patch(monkeypatch)
    folder = samples.folder_in(tmp_path)
    settings = Settings("tiny", "tiny-dense", frames=FRAMES, size=SIZE)
    prepare(open_dataset("tiny", folder), tmp_path / "store", settings, split_seed=20)
    return open_prepared(tmp_path / "store")


def examples(store: Prepared, side: str, folder: Path, backbone: str = "still") -> Examples:
    cell = Cell(backbone, 1, 0.3)
    return Examples(store.side(side), cell, map_size=(8, 12), folder=folder)


@pytest.fixture
def coarse(still: Still, monkeypatch: pytest.MonkeyPatch) -> Still:
    """Sees three frames of a scene, each a slot."""
    card = replace(CARD, id="coarse", max_frames=3, frame_step=1)
    backbone = Still(card)
    entry = registry.Entry(card, lambda card, target: backbone, None, None, None, None)
    monkeypatch.setitem(registry._entries, "coarse", entry)
    return backbone


def test_backbones_are_asked_for_the_same_frames_of_a_scene(
    store: Prepared, coarse: Still, tmp_path: Path
) -> None:
    one, other = (
        examples(store, "train", tmp_path / "features", name) for name in ("still", "coarse")
    )
    assert coarse.clip.source_frames.tolist() == [0, 4, 8]  # over all of the scene
    assert one.items[0].frames.tolist() == other.items[0].frames.tolist() == [0, 1, 5]
    assert one.items[0].slots.tolist() == [0, 1, 2]
    assert other.items[0].slots.tolist() == [0, 0, 1]  # frame 5 is nearest to 4
    for index in range(len(one)):
        assert (one.evaluation_frames(index) == other.evaluation_frames(index)).all()
        mine, theirs = one.fixed(index), other.fixed(index)
        for name in ("depth", "confidence", "cam_from_world", "intrinsics"):
            assert (mine[name] == theirs[name]).all(), name
        assert (
            one.draw(index, seed=0, draw=3)["depth"] == other.draw(index, seed=0, draw=3)["depth"]
        ).all()


def test_pictures_are_brought_to_a_backbones_shape_as_a_look_does_it(
    store: Prepared, still: Still, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shapes: dict[str, Any] = {}
    for fit in ("crop", "stretch"):
        card = replace(CARD, input_size=(16, 12), fit=fit)  # type: ignore[arg-type]
        monkeypatch.setattr(still, "card", card)
        entry = replace(registry._entries["still"], card=card)
        monkeypatch.setitem(registry._entries, "still", entry)
        found = examples(store, "test", tmp_path / "features")
        item = found.items[0]
        shapes[fit] = still.clip.crop, item.features, item.geometry, item.read(np.array([0]))
    assert shapes["crop"][0] == (0, 7, 24, 18)
    assert shapes["stretch"][0] == (0, 0, 24, 32)
    assert shapes["crop"][1] != shapes["stretch"][1]
    assert shapes["crop"][2] != shapes["stretch"][2]
    assert (shapes["crop"][3]["intrinsics"] != shapes["stretch"][3]["intrinsics"]).any()


def test_both_sides_have_scenes_and_share_no_place(store: Prepared) -> None:
    sides = {side: {scene.place for scene in store.side(side)} for side in ("train", "test")}
    assert sides["train"]
    assert sides["test"]
    assert not sides["train"] & sides["test"]


def test_features_are_computed_once_and_read_by_slot(
    store: Prepared, still: Still, tmp_path: Path
) -> None:
    found = examples(store, "train", tmp_path / "features")
    assert still.calls == len(found) > 0
    assert found.channels == CHANNELS
    again = examples(store, "train", tmp_path / "features")
    assert still.calls == len(found)
    item = again.items[0]
    part = item.read(np.array([0, 5]))
    assert part["values"].shape == (2, *GRID, CHANNELS)
    whole = item.read(np.array([0, 1, 5]))
    for name, values in part.items():
        assert (values == whole[name][[0, 2]]).all(), name
    scene = store.scene(item.scene)
    exact = scene.reconstruction(scene.clip(count=FRAMES, size=(16, 24)))
    assert part["depth"].shape == (2, 8, 12)
    np.testing.assert_allclose(part["depth"], exact.depth[[0, 5]][:, 1::2, 1::2], rtol=0.02)
    np.testing.assert_allclose(
        part["cam_from_world"], exact.cameras.cam_from_world[[0, 5]], atol=1e-3
    )


def test_pictures_that_a_backbone_sees_enlarged_are_said(
    store: Prepared, still: Still, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert examples(store, "test", tmp_path / "features").enlarged is None
    card = replace(CARD, input_size=(32, 48))
    monkeypatch.setattr(still, "card", card)
    entry = replace(registry._entries["still"], card=card)
    monkeypatch.setitem(registry._entries, "still", entry)
    said = examples(store, "test", tmp_path / "features").enlarged
    assert said is not None
    assert said.startswith("pictures are kept at 24x32 and enlarged to 32x48 for still")


@pytest.mark.parametrize("what", ["features", "geometry"])
def test_a_full_disk_is_said(
    what: str, store: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Store.put
    monkeypatch.setattr(
        Store, "put", lambda self, kind, *rest: kind != what and real(self, kind, *rest)
    )
    with pytest.raises(ProbeError, match=f"{what} cannot be kept in .* another --features"):
        examples(store, "test", tmp_path / "features")


def test_targets_are_in_the_first_frame_s_unit(store: Prepared, tmp_path: Path) -> None:
    found = examples(store, "train", tmp_path / "features")
    features, targets = collate(
        [found.draw(0, seed=0, draw=0), found.draw(0, seed=0, draw=1)], "cpu"
    )
    assert features.shape == (2, found.rule.views, *GRID, CHANNELS)
    valid = targets.weight[:, 0] > 0
    distance = targets.points[:, 0].norm(dim=-1)
    for clip in range(2):
        assert float(distance[clip][valid[clip]].mean()) == pytest.approx(1, abs=1e-4)
    assert (targets.weight.amax((1, 2, 3)) > 2).all()  # the reference's confidence, not 1


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


def run(store: Prepared, tmp: Path, name: str, steps: int = 14, **options: Any) -> Any:
    sides = [examples(store, side, tmp / "features") for side in ("train", "test")]
    losses: list[dict[str, Any]] = []
    data = {"split": store.split.reference, "validation_side": options.pop("side", None)}
    chosen = Options(steps=steps, batch=2, **{"rate": 5e-3, "save_every": 4, **options})
    card = train(
        *sides, tmp / name, chosen, data=data, on_step=losses.append,
    )  # fmt: skip
    return card, losses, sides


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


def test_some_scenes_of_a_side_are_the_same_ones_and_not_the_first(store: Prepared) -> None:
    names = [[scene.name for scene in store.side("train", most=most)] for most in range(4)]
    assert names[0] == []
    assert [len(each) for each in names] == [0, 1, 2, 3]
    assert all(set(few) < set(more) for few, more in itertools.pairwise(names))
    assert names[3] == [scene.name for scene in store.side("train")]
    assert names[1] != names[3][:1]


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


def test_scenes_whose_reference_lacks_the_slots_are_left_out(
    still: Still, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    samples.patch(monkeypatch)
    folder = samples.folder_in(tmp_path)
    settings = Settings("tiny", "tiny-sparse", frames=FRAMES, size=SIZE)
    prepare(open_dataset("tiny", folder), tmp_path / "store", settings, limit=2)
    scenes = [open_prepared(tmp_path / "store").scene("s0")]
    with pytest.raises(ProbeError, match="none of the scenes can be trained on; s0: .* no frames"):
        Examples(scenes, Cell("still", 1, 0.3), map_size=(8, 12), folder=tmp_path / "f")  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
