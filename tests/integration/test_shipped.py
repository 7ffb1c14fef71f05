"""What is shipped, as it is used: probes that fit their backbones, and looks at a shipped clip."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from explorer.assets import assets_root
from explorer.backbones import loaded, registry
from explorer.cli import main
from explorer.look import FramePredicted, LookRequest, Predicted, Referenced, look
from explorer.metrics.points import point_error
from explorer.probe.checkpoint import find_probe, list_probes, load_probe
from explorer.probe.model import ProbeConfig
from explorer.recording import RecordedFrame, points_by_frame
from explorer.recording.layout import TIMELINE
from explorer.store import Store

CLIP = "room-orbit-01"
SLOT_FRAMES = [0, 1, 5, 9, 13]
COMMANDS = {
    "toy-wan": ["--layer", "5", "--sigma", "0.3"],
    "random": ["--layer", "5"],
    "latent": ["--layer", "0"],
    "rgb": ["--layer", "0"],
    "toy-vggt": ["--layer", "5"],
}
WORLD = ("points", "camera", "frustums")
LARGEST_PROBE = 750_000
STAGES = "decode load latents features prediction reference comparison total".split()


@dataclass(frozen=True)
class Run:
    """One command's JSON and the recording that it wrote."""

    summary: dict[str, Any]
    recording: Path
    frames: dict[int, RecordedFrame]
    calls: int


def command(
    backbone: str, words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> Run:
    """`emerge3d look`, in this process."""
    clip = str(assets_root() / "clips" / f"{CLIP}.mp4")
    line = ["look", clip, "--backbone", backbone, *words, "--device", "cpu", "--json"]
    out = folder / f"{backbone}{''.join(words)}.rrd"
    assert main([*line, "--cache", str(folder / "store"), "--out", str(out)]) == 0
    summary = json.loads(capsys.readouterr().out)
    calls = sum(model.calls for model in loaded.models.values())
    return Run(summary, out, points_by_frame(out), calls)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all looks of this file."""
    return tmp_path_factory.mktemp("shipped")


SHIPPED = [card for card in registry.cards() if card.source is None]


@pytest.mark.parametrize("card", SHIPPED, ids=lambda card: card.id)
def test_the_default_cell_of_every_shipped_backbone_has_a_shipped_probe(card: Any) -> None:
    assert find_probe(card.id, *card.default_cell) is not None


@pytest.mark.parametrize("card", list_probes(), ids=lambda card: f"{card.backbone}-{card.layer}")
def test_every_shipped_probe_is_small_and_loads_on_the_weights_that_are_shipped(card: Any) -> None:
    load_probe(card, backbone_hash=registry.hashes(card.backbone).weights)
    again = ProbeConfig.from_dict(card.config).to_dict()
    assert json.loads(json.dumps(again)) == card.config, "the card says what a new one would say"
    with safe_open(card.weights, framework="numpy") as file:
        sizes = [math.prod(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118
    assert sum(sizes) <= LARGEST_PROBE


@pytest.mark.parametrize(("backbone", "words"), COMMANDS.items(), ids=COMMANDS)
def test_a_look_at_a_shipped_clip_prints_what_the_design_names(
    backbone: str, words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = command(backbone, words, folder, capsys)
    found = run.summary
    for name in ("point_error", "depth_error", "correspondence_error_px"):
        assert 0 < found[name] < math.inf, name
    for name in ("auc5", "auc30", "pck"):
        assert 0 <= found[name] <= 1, name
    assert found["point_error"] < 1  # the unit is the mean distance of the first frame's points
    assert found["alignment"]["scale"] > 0
    assert np.shape(found["alignment"]["rotation"]) == (3, 3)
    assert np.shape(found["alignment"]["translation"]) == (3,)
    assert list(found["seconds"]) == STAGES
    assert all(value >= 0 for value in found["seconds"].values())
    assert found["peak_memory_bytes"] > 0
    assert [row["frame"] for row in found["per_frame"]] == SLOT_FRAMES
    assert list(run.frames) == SLOT_FRAMES
    source = found["provenance"]
    assert source["backbone"]["id"] == backbone
    assert source["layer"] == int(words[1])
    assert source["clip"]["name"].startswith(CLIP)
    assert source["probe"]["trained"] is True
    assert source["reference"]["id"] == "exact"
    level = registry.noise_level(backbone, source["sigma"])
    assert level is not None
    assert (source["timestep"], source["official_index"]) == (level.timestep, level.official_index)


def test_a_look_without_a_probe_says_so_and_compares_the_features_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = command("toy-wan", ["--layer", "0", "--sigma", "0.3"], folder, capsys).summary
    for name in ("point_error", "depth_error", "auc5", "auc30", "alignment"):
        assert found[name] is None, name
    assert 0 < found["correspondence_error_px"] < math.inf
    assert 0 < found["pck"] <= 1
    assert found["provenance"]["probe"] is None
    assert any("no trained probe" in note for note in found["notes"])


def test_the_recording_holds_the_points_that_the_reported_error_comes_from(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = command("toy-wan", COMMANDS["toy-wan"], folder, capsys)
    assert list(run.frames) == SLOT_FRAMES
    predicted, reference, known = [], [], []
    for frame in run.frames.values():
        assert frame.prediction is not None
        assert frame.reference is not None
        assert frame.reference_depth is not None
        valid = frame.reference_depth > 0
        grid = np.zeros((*valid.shape, 3), dtype=np.float32)
        grid[valid] = frame.reference
        reference.append(grid)
        predicted.append(frame.prediction.reshape(grid.shape))
        known.append(valid.astype(np.float64))
    error = point_error(np.stack(predicted), np.stack(reference), np.stack(known)).error
    assert run.summary["point_error"] == pytest.approx(error, abs=1e-4)


def recorded_at(path: Path) -> dict[str, list[int]]:
    """The frames at which a recording has a row, by entity."""
    from rerun.chunk import RrdReader

    found: dict[str, list[int]] = {}
    for chunk in RrdReader(path).stream():
        if not chunk.is_static and TIMELINE in chunk.timeline_names:
            rows = chunk.to_record_batch().to_pylist()
            found.setdefault(chunk.entity_path, []).extend(int(row[TIMELINE]) for row in rows)
    return {entity: sorted(times) for entity, times in found.items()}


def test_prediction_and_reference_are_recorded_at_every_slots_frame_and_rest_at_the_same_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = recorded_at(command("toy-wan", COMMANDS["toy-wan"], folder, capsys).recording)
    # The input is a film, which ends where the last slot is: the viewer rests there.
    assert found.pop("/input") == list(range(SLOT_FRAMES[-1] + 1))
    worlds = [f"/{w}/{e}" for w in ("prediction", "reference") for e in WORLD]
    pictures = ["/depth/prediction", "/depth/reference", "/error"]
    assert found == dict.fromkeys([*worlds, *pictures], SLOT_FRAMES)


@pytest.mark.parametrize("cell", [("3", "0.3"), ("5", "0.1")], ids=["layer", "sigma"])
def test_another_layer_or_sigma_changes_the_points_and_not_the_reference(
    cell: tuple[str, str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = command("toy-wan", COMMANDS["toy-wan"], folder, capsys).frames
    other = command("toy-wan", ["--layer", cell[0], "--sigma", cell[1]], folder, capsys).frames
    for frame in SLOT_FRAMES:
        ours, theirs = first[frame].prediction, other[frame].prediction
        assert ours is not None
        assert theirs is not None
        assert np.abs(ours - theirs).max() > 0.01
        np.testing.assert_array_equal(first[frame].reference, other[frame].reference)


def test_a_second_look_loads_and_calls_no_backbone_and_says_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = COMMANDS["toy-wan"]
    first = command("toy-wan", words, folder, capsys)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(registry, "load", refuse)
    again = command("toy-wan", words, folder, capsys)
    assert again.calls == first.calls
    assert again.summary["cached"] == {"latents": None, "features": True, "prediction": True}
    for name in ("point_error", "depth_error", "auc5", "auc30", "alignment", "pck", "per_frame"):
        assert again.summary[name] == first.summary[name], name


@pytest.mark.parametrize("clip", [CLIP, "ground-dolly-01"])
def test_predicted_points_depth_and_cameras_share_the_unit_of_the_reference(
    clip: str, folder: Path
) -> None:
    path = assets_root() / "clips" / f"{clip}.mp4"
    request = LookRequest(path=path, backbone="latent", layer=0, sigma=0.1, device="cpu")
    stages = list(look(request, store=Store(folder / "store")))
    first = next(stage for stage in stages if isinstance(stage, FramePredicted))
    found = next(stage for stage in stages if isinstance(stage, Predicted)).reconstruction
    assert found is not None
    assert np.median(first.points[..., 2] / first.depth) == pytest.approx(1.0, abs=1e-3)
    reference = next(stage for stage in stages if isinstance(stage, Referenced)).reconstruction
    assert reference is not None
    seen = reference.valid[0]  # a probe is not trained on the sky
    assert 0.7 < np.linalg.norm(first.points[seen], axis=-1).mean() < 1.4
    assert 0.7 < np.median(reference.depth[0][seen] / first.depth[seen]) < 1.4
    translations = np.linalg.norm(found.cameras.cam_from_world[:, :, 3], axis=-1)
    assert translations[0] < 1e-6
    assert 0.01 < translations[-1] < 3
