"""References in whole looks: what they give, and what a look does without them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from reference_memory import TINY
from safetensors.torch import load_file, save_file

from explorer import references
from explorer.backbones import loaded, registry
from explorer.backbones.base import Hashes, stop_check
from explorer.cli import main
from explorer.clip import load_clip
from explorer.errors import Cancelled, NoReconstruction
from explorer.look import Compared, Judged, Predicted, Referenced, look
from explorer.metrics.points import point_error
from explorer.reconstruction import Reconstruction
from explorer.references import Context, Entry

CLIPS = Path(__file__).resolve().parents[2] / "assets" / "clips"


def test_a_look_with_colmap_has_metrics_from_sparse_points(
    tiny: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pycolmap")
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
    offer(monkeypatch, "strict", _no_parallax)
    summary = list(look(tiny.ask(reference="strict"), store=tiny.store))[-1].summary
    assert summary["notes"] == ["no reference: too little parallax"]
    assert summary["point_error"] is None
    assert summary["provenance"]["reference"] is None


def test_a_reference_may_decode_the_window_again_at_a_larger_size(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, make_video: Callable[..., Path]
) -> None:
    seen = []

    def watch(clip: Any, context: Context) -> None:
        seen.append((clip, context.closer(clip, 200), context.closer(clip, 100)))

    offer(monkeypatch, "watch", watch)
    video = make_video("large.mp4", count=8, size=(160, 240))
    list(look(tiny.ask(reference="watch", path=video, start=2), store=tiny.store))
    ((clip, fine, same),) = seen
    assert clip.size == (64, 96)
    assert fine.size == (128, 192)
    assert fine.crop == clip.crop
    np.testing.assert_array_equal(fine.source_frames, clip.source_frames)
    assert same is clip


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


def test_kitchen_is_reconstructed_from_its_stills(media: Path) -> None:
    pytest.importorskip("pycolmap")
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


def offer(monkeypatch: pytest.MonkeyPatch, name: str, reference: Callable[..., Any]) -> None:
    references.names()  # let the shipped ones register first
    entry = Entry(name, reference, None, None, None)
    monkeypatch.setitem(references._references, name, entry)


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
    refusing = replace(references._references["colmap"], missing=None, reference=_no_parallax)
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


def _no_parallax(clip: object, context: object) -> None:
    raise NoReconstruction("too little parallax")


def shifted(found: Reconstruction, pixels: np.ndarray, source: str = "other") -> Reconstruction:
    """Another judge: the same geometry, but three times as far away in some pixels (S, H, W)."""
    depth = np.where(pixels, 3 * found.depth, found.depth)
    points = np.where(pixels[..., None], 3 * found.points, found.points)
    return Reconstruction(**{**vars(found), "depth": depth, "points": points, "source": source})


@pytest.fixture
def judged(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`tiny`, with a judge "other" that sees the lower right corner of frame 1 further away."""
    exact = references.reconstruct("exact", load_clip(tiny.request.path, count=5, size=(64, 96)))
    assert exact is not None
    pixels = np.zeros(exact.depth.shape, dtype=bool)
    pixels[1, 48:, 72:] = True
    offer(monkeypatch, "other", lambda clip, context: shifted(exact, pixels))
    return tiny


def test_a_second_judge_marks_disputed_pixels_and_metrics_are_given_without_them_too(
    judged: Any,
) -> None:
    stages = list(look(judged.ask(judge="other"), store=judged.store))
    kinds = [type(stage) for stage in stages]
    assert kinds.index(Judged) == kinds.index(Referenced) + 1
    (agreed,) = (stage.agreement for stage in stages if isinstance(stage, Judged))
    (compared,) = (stage for stage in stages if isinstance(stage, Compared))
    (predicted,) = (stage.reconstruction for stage in stages if isinstance(stage, Predicted))
    (reference,) = (stage.reconstruction for stage in stages if isinstance(stage, Referenced))
    assert agreed is not None
    expected = np.zeros((2, 16, 24), dtype=bool)
    expected[1, 12:, 18:] = True
    np.testing.assert_array_equal(agreed.disagree, expected)
    assert compared.undisputed is not None
    left = reference.valid & ~expected
    np.testing.assert_array_equal(np.isfinite(compared.undisputed.point_error_map), left)
    np.testing.assert_array_equal(np.isfinite(compared.report.point_error_map), reference.valid)
    by_hand = point_error(predicted.points, reference.points, left.astype(np.float64)).error
    summary = stages[-1].summary
    assert summary["undisputed"]["point_error"] == pytest.approx(by_hand)
    assert summary["undisputed"]["point_error"] != summary["point_error"]
    assert summary["agreement"]["judge"] == "other"
    assert summary["agreement"]["share"] == pytest.approx(expected.sum() / reference.valid.sum())
    assert summary["agreement"]["per_frame"] == [
        {"frame": 0, "share": 0.0},
        {"frame": 1, "share": pytest.approx(expected[1].sum() / reference.valid[1].sum())},
    ]
    assert summary["agreement"]["point_error"] > 0
    assert summary["seconds"]["judge"] >= 0


def test_a_look_without_a_second_judge_is_what_it_was(judged: Any) -> None:
    with_one, without = (
        list(look(judged.ask(judge=name), store=judged.store))[-1].summary
        for name in ("other", "none")
    )
    assert without["agreement"] is None
    assert without["undisputed"] is None
    assert "judge" not in without["seconds"]
    for name in ("point_error", "depth_error", "auc30", "per_frame", "correspondence"):
        assert with_one[name] == without[name], name


def test_what_judges_say_of_each_other_comes_from_the_store_and_needs_no_torch(
    judged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = list(look(judged.ask(judge="other"), store=judged.store))[-1].summary
    monkeypatch.setitem(registry._entries, "tiny", known_hashes())
    monkeypatch.setattr(loaded, "models", {})
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails from here on
    again = list(look(judged.ask(judge="other"), store=judged.store))[-1].summary
    assert again["agreement"] == first["agreement"]
    assert again["undisputed"] == first["undisputed"]


def known_hashes() -> Any:
    known = Hashes("tiny-1", "tiny-encoder-1")
    return replace(registry._entries["tiny"], hashes=lambda target: known)


def test_a_frame_that_the_judge_does_not_know_has_no_share_and_who_was_asked_is_named(
    judged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = references.reconstruct("exact", load_clip(judged.request.path, count=5, size=(64, 96)))
    assert exact is not None
    confidence = exact.confidence.copy()
    confidence[1] = 0
    answer = replace(exact, confidence=confidence, source="colmap", provenance={"judge": "colmap"})
    offer(monkeypatch, "whoever", lambda clip, context: answer)
    found = list(look(judged.ask(judge="whoever"), store=judged.store))[-1].summary["agreement"]
    assert found["judge"] == "colmap"
    assert found["per_frame"] == [{"frame": 0, "share": 0.0}, {"frame": 1, "share": None}]


def test_without_a_probe_judges_are_compared_all_the_same(judged: Any) -> None:
    summary = list(look(judged.ask(judge="other", layer=0), store=judged.store))[-1].summary
    assert summary["agreement"]["share"] > 0
    assert summary["undisputed"] is None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"judge": "strict"}, "no second judge: strict: too little parallax"),
        ({"judge": "exact"}, "no second judge: exact: here it is exact, as is the reference"),
        ({"judge": "blind"}, "no second judge: blind: 'blind' knows nothing about this video"),
        ({"judge": "later"}, "no second judge: later: other has no frames"),
        ({"judge": "other", "reference": "none"}, "no second judge: other: there is no reference"),
    ],
)
def test_a_judge_that_cannot_judge_says_why_and_the_look_goes_on(
    asked: dict[str, str], said: str, judged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = references.reconstruct("exact", load_clip(judged.request.path, count=5, size=(64, 96)))
    assert exact is not None
    late = {**vars(exact), "frames": exact.frames + 10, "source": "other"}
    offer(monkeypatch, "strict", _no_parallax)
    offer(monkeypatch, "blind", lambda clip, context: None)
    offer(monkeypatch, "later", lambda clip, context: Reconstruction(**late))
    stages = list(look(judged.ask(**asked), store=judged.store))
    assert any(isinstance(stage, Judged) and stage.agreement is None for stage in stages)
    summary = stages[-1].summary
    assert any(note.startswith(said) for note in summary["notes"]), summary["notes"]
    assert summary["agreement"] is summary["undisputed"] is None
    if "reference" not in asked:
        assert summary["point_error"] is not None


def test_where_everything_is_disputed_nothing_is_left_to_measure(
    judged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = references.reconstruct("exact", load_clip(judged.request.path, count=5, size=(64, 96)))
    assert exact is not None
    noise = np.random.default_rng(0).normal(size=exact.points.shape) * 50
    wild = Reconstruction(**{**vars(exact), "points": noise, "source": "wild"})
    offer(monkeypatch, "wild", lambda clip, context: wild)
    summary = list(look(judged.ask(judge="wild"), store=judged.store))[-1].summary
    assert summary["agreement"]["share"] > 0.9
    assert summary["point_error"] is not None


def test_stop_ends_a_look_while_the_judge_is_at_work_and_stores_nothing_of_it(
    judged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Event()

    def patient(clip: Any, context: Context) -> Reconstruction:
        def make() -> Reconstruction:
            stop.set()
            stop_check(context.should_stop)
            raise AssertionError("the judge went on")

        return context.cached(clip, {"name": "patient"}, make)

    offer(monkeypatch, "patient", patient)
    seen: list[Any] = []
    with pytest.raises(Cancelled):
        seen.extend(look(judged.ask(judge="patient"), store=judged.store, should_stop=stop.is_set))
    stored = sorted(path.name for path in judged.store.root.iterdir())
    stop.clear()
    assert "no-reconstruction" not in stored
    whole = list(look(judged.ask(judge="other"), store=judged.store))
    assert whole[-1].summary["agreement"] is not None


def test_a_judge_that_is_not_here_is_a_mistake_before_any_work(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["look", str(tiny.request.path), "--backbone", "tiny", "--device", "cpu"]
    for name in ("nobody", "auto"):
        assert main([*words, "--judge", name]) == 2
        assert f"there is no reference '{name}'" in capsys.readouterr().err
    assert tiny.backbone.calls == 0


def test_the_command_line_says_what_is_disputed(
    judged: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["look", str(judged.request.path), "--backbone", "tiny", "--count", "5"]
    assert main([*words, "--stride", "1", "--device", "cpu", "--judge", "other"]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.strip().splitlines())
    assert re.fullmatch(
        r"3\.3% of 720 that other knows too, off by more than 0\.\d\d",
        lines["disputed pixels"].strip(),
    )
    assert float(lines["undisputed point error"]) != float(lines["point error"])


def test_the_command_line_says_how_far_the_reference_agrees_with_itself(
    judged: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["look", str(judged.request.path), "--backbone", "tiny", "--count", "5"]
    words += ["--stride", "1", "--device", "cpu"]
    row = re.compile(r"^reference with itself +(\S+) of the pixels .* agree(.*)$", re.MULTILINE)
    exact = references.reconstruct("exact", load_clip(judged.request.path, count=5, size=(64, 96)))
    assert exact is not None
    depth = exact.depth * np.array([1, 2, 1, 2, 1])[:, None, None]
    offer(monkeypatch, "moving", lambda clip, context: replace(exact, depth=depth))
    for name, warned in (("exact", False), ("moving", True)):
        assert main([*words, "--reference", name]) == 0
        said = row.search(capsys.readouterr().out)
        assert said is not None
        assert ("something moves" in said[2]) is warned
    assert main([*words, "--reference", "none"]) == 0
    assert "reference with itself" not in capsys.readouterr().out
