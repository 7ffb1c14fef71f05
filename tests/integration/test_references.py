"""References in whole looks: what they give, and what a look does without them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from offering import no_parallax, offer
from reference_memory import TINY
from safetensors.torch import load_file, save_file

from explorer import references
from explorer.backbones import registry
from explorer.cli import main
from explorer.clip import load_clip
from explorer.look import Compared, Referenced, look
from explorer.reconstruction import Reconstruction
from explorer.references import Context

CLIPS = Path(__file__).resolve().parents[2] / "assets" / "clips"


def test_a_look_with_colmap_has_metrics_from_sparse_points(
    tiny: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["look", str(CLIPS / "room-orbit-02.mp4"), "--reference", "colmap", "--json"]
    command += ["--backbone", "tiny", "--stride", "2"]
    assert main([*command, "--cache", str(tmp_path / "store"), "--device", "cpu"]) == 0
    printed = capfd.readouterr()
    summary = json.loads(printed.out)
    for name in ("point_error", "depth_error", "auc5", "auc30"):
        assert isinstance(summary[name], float), name
    source = summary["provenance"]["reference"]
    assert (source["id"], source["registered"], source["frames"]) == ("colmap", 9, 9)
    assert source["reprojection_error_px"] < 1
    (note,) = summary["notes"]
    error = f"{source['reprojection_error_px']:.2f} px"
    assert note.startswith(f"the reference is colmap's: it registered 9 of 9 frames at {error}")
    assert "incremental_pipeline" not in printed.err  # COLMAP's own log


def test_frames_that_a_sparse_reference_lacks_are_named_and_the_others_compared(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    exact = references.reconstruct("exact", load_clip(tiny.request.path, count=5, size=(64, 96)))
    assert exact is not None
    partly = exact.at_frames(np.array([0, 2, 3]))
    sparse = Reconstruction(**{**vars(partly), "sparse": True, "source": "partly"})
    offer(monkeypatch, "partly", lambda clip, context: sparse)
    stages = list(look(tiny.ask(reference="partly"), store=tiny.store))
    referenced = next(stage for stage in stages if isinstance(stage, Referenced))
    assert referenced.reconstruction is not None
    assert referenced.reconstruction.frames.tolist() == [0]
    assert "did not register frames 1:" in (referenced.note or "")
    report = next(stage.report for stage in stages if isinstance(stage, Compared))
    assert report is not None
    assert np.isnan(report.point_error_map[1]).all()
    assert np.isfinite(report.point_error)
    again = list(look(tiny.ask(reference="partly"), store=tiny.store))[-1].summary
    assert again["per_frame"][1]["point_error"] is None
    assert again["per_frame"] == stages[-1].summary["per_frame"]


def test_a_clip_that_cannot_be_reconstructed_is_looked_at_without_a_reference(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, "strict", no_parallax)
    summary = list(look(tiny.ask(reference="strict"), store=tiny.store))[-1].summary
    assert summary["notes"] == ["no reference: too little parallax"]
    assert summary["point_error"] is None
    assert summary["provenance"]["reference"] is None


def test_a_reference_may_decode_the_window_again_at_a_larger_size(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, make_video: Callable[..., Path]
) -> None:
    seen = []

    def watch(clip: Any, context: Context) -> None:
        sizes = (
            {"width": 200},
            {"width": 90},
            {"width": 200, "enough": 96},
            {"width": 200, "whole": True},
        )
        seen.append((clip, *(context.closer(clip, **size) for size in sizes)))

    offer(monkeypatch, "watch", watch)
    video = make_video("large.mp4", count=8, size=(160, 240))
    list(look(tiny.ask(reference="watch", path=video, start=2), store=tiny.store))
    ((clip, fine, narrow, same, doubled),) = seen
    assert clip.size == (64, 96)
    assert fine.size == (133, 200)
    assert doubled.size == (128, 192)
    assert doubled.crop == fine.crop == clip.crop
    np.testing.assert_array_equal(fine.source_frames, clip.source_frames)
    assert narrow is same is clip


def test_a_stretched_clip_is_decoded_again_in_its_true_shape(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, make_video: Callable[..., Path]
) -> None:
    seen = []
    offer(monkeypatch, "watch", lambda clip, context: seen.append((clip, context.closer(clip, 60))))
    card = replace(tiny.backbone.card, fit="stretch")
    entry = replace(registry._entries["tiny"], card=card)
    monkeypatch.setitem(registry._entries, "tiny", entry)
    video = make_video("portrait.mp4", count=6, size=(160, 120))
    list(look(tiny.ask(reference="watch", path=video), store=tiny.store))
    ((clip, fine),) = seen
    assert clip.size == (64, 96)
    assert fine.size == (80, 60)
    assert fine.crop == clip.crop == (0, 0, 160, 120)


@pytest.mark.timeout(900)  # 55 s on an idle core: one thread matches all pairs of 25 stills
def test_kitchen_is_reconstructed_from_its_stills(media: Path) -> None:
    if not (media / "kitchen").is_dir():
        pytest.skip("no kitchen among the real clips")
    clip = load_clip(media / "kitchen", count=None, size=None)
    found = references.reconstruct("colmap", clip)
    assert found is not None
    assert found.provenance["registered"] >= 23
    assert found.provenance["points"] > 1200
    assert found.provenance["reprojection_error_px"] < 0.5
    assert found.provenance["parallax_degrees"] > 10
    first = found.points[0][found.valid[0]]
    assert np.linalg.norm(first, axis=-1).mean() == pytest.approx(1.0, rel=1e-5)


def test_a_dense_reference_says_how_consistent_it_is_and_a_sparse_one_does_not(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = list(look(tiny.request, store=tiny.store))[-1].summary
    found = summary["reference_consistency"]
    assert 0 <= found["mean"] <= 1
    assert [row["frame"] for row in found["per_frame"]] == [0, 1, 2, 3, 4]
    exact = references.reconstruct("exact", load_clip(tiny.request.path, count=5, size=(64, 96)))
    sparse = Reconstruction(**{**vars(exact), "sparse": True})
    offer(monkeypatch, "points", lambda clip, context: sparse)
    again = list(look(tiny.ask(reference="points"), store=tiny.store))[-1].summary
    assert again["reference_consistency"] is None


def test_the_references_are_listed_with_what_they_lack_and_fetched_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EMERGE3D_WEIGHTS", raising=False)
    monkeypatch.setattr("explorer.references._published._cached", lambda source: None)
    assert main(["references"]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()[0].split("  ")) > 1
    assert "run `emerge3d references vggt --download`" in printed
    asked = []

    def fetch(source: Any, **_: Any) -> Path:
        asked.append((source.repo, list(source.files)))
        return Path("cache")

    monkeypatch.setattr("explorer.references._published.fetch", fetch)
    assert main(["references", "vggt", "--download", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["references"]
    assert found["id"] == "vggt"
    assert found["licence"].startswith("CC BY-NC")
    assert asked == [("facebook/VGGT-1B", ["model.safetensors"])]


def test_the_list_says_what_to_keep_in_mind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["references", "toy-vggt"]) == 0
    assert "toy estimate, not ground truth" in capsys.readouterr().out


def test_references_that_share_weights_have_them_in_one_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["references", "vggt-point-head", "--download"]) == 2
    assert "then name it vggt and set EMERGE3D_WEIGHTS" in capsys.readouterr().err


def test_an_upload_to_the_default_installation_is_judged_by_the_shipped_network(
    make_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    monkeypatch.setattr("explorer.references._published._cached", lambda source: None)
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    path = make_video("upload.mp4", count=5, size=(64, 96))
    clip = load_clip(path, count=5, size=(64, 96))
    assert references.suggest(clip) == "estimate"
    made = references.reconstruct("estimate", clip, Context(frames=(0, 1)))  # as a look asks
    assert made is not None
    assert (made.source, made.provenance["judge"]) == ("toy-vggt", "toy-vggt")
    said = references.note("estimate", made)
    assert said is not None
    assert said.startswith("the reference toy-vggt is a toy estimate, not ground truth; ")
    assert "colmap is not here; vggt is not here" in said


@pytest.mark.parametrize("name", ["toy-vggt", "estimate"])
def test_a_look_with_the_toy_goes_by_the_compared_frames_and_says_what_it_is(
    name: str, tiny: Any, tmp_path: Path, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = load_file(golden / "vggt-tiny.safetensors")
    named = {key.removeprefix("weight."): state[key] for key in state if "weight." in key[:7]}
    named["camera_head.pose_branch.fc2.bias"][7:] += 1  # some field of view
    folder = tmp_path / "assets" / "models" / "toy-vggt"
    folder.mkdir(parents=True)
    save_file(named, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(TINY)))
    (folder / "card.json").write_text(json.dumps({"input": [28, 42], "maps": [32, 48]}))
    monkeypatch.setenv("EMERGE3D_ASSETS", str(tmp_path / "assets"))
    references.names()
    refusing = replace(references._references["colmap"], missing=None, reference=no_parallax)
    monkeypatch.setitem(references._references, "colmap", refusing)
    stages = list(look(tiny.ask(reference=name), store=tiny.store))
    (referenced,) = (stage for stage in stages if isinstance(stage, Referenced))
    assert referenced.full is not None
    assert referenced.full.frames.tolist() == [0, 1]
    summary = stages[-1].summary
    assert summary["provenance"]["reference"]["source"] == "toy-vggt"
    (note,) = summary["notes"]
    assert note.startswith("the reference toy-vggt is a toy estimate, not ground truth")
    assert ("colmap: too little parallax" in note) is (name == "estimate")
    for rows in (summary["per_frame"], summary["reference_consistency"]["per_frame"]):
        assert [row["frame"] for row in rows] == [0, 1]
    assert summary["point_error"] is not None
