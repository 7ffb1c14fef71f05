"""One look, from clip to metrics, with a small backbone and real probe, store and reference."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorer.backbones import loaded, registry
from explorer.backbones.base import Hashes
from explorer.clip import load_clip
from explorer.data.geometry import save_geometry
from explorer.errors import BackboneError, Cancelled, ClipError, EmergeError, ReferenceError3D
from explorer.look import (
    Compared,
    Decoded,
    FeaturesReady,
    Finished,
    FramePredicted,
    LatentsReady,
    Predicted,
    Referenced,
    look,
)
from explorer.recording import Recording, points_by_frame

WITH_PROBE = [
    Decoded,
    LatentsReady,
    FeaturesReady,
    FramePredicted,
    FramePredicted,
    Predicted,
    Referenced,
    Compared,
    Finished,
]


def stages(tiny: Any, **changes: object) -> list[Any]:
    return list(look(tiny.ask(**changes), store=tiny.store))


def summary(tiny: Any, **changes: object) -> dict[str, Any]:
    return stages(tiny, **changes)[-1].summary


def test_a_look_yields_its_stages_in_order(tiny: Any) -> None:
    found = stages(tiny)
    assert [type(stage) for stage in found] == WITH_PROBE
    assert [stage.frame for stage in found if isinstance(stage, FramePredicted)] == [0, 1]
    moments = [stage.seconds for stage in found]
    assert moments == sorted(moments)


def test_the_summary_holds_metrics_timings_and_provenance_as_plain_json(tiny: Any) -> None:
    found = summary(tiny)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name in ("point_error", "depth_error", "auc5", "auc30", "correspondence_error_px", "pck"):
        assert isinstance(found[name], float), name
    assert set(found["alignment"]) == {"scale", "rotation", "translation"}
    assert set(found["seconds"]) == {
        "decode",
        "load",
        "latents",
        "features",
        "prediction",
        "reference",
        "comparison",
        "total",
    }
    assert found["peak_memory_bytes"] > 1e7
    source = found["provenance"]
    assert source["backbone"] == {
        "id": "tiny",
        "kind": "test",
        "hash": "tiny-1",
        "trained": False,
    }
    assert (source["layer"], source["sigma"], source["seed"]) == (1, 0.3, 0)
    assert (source["timestep"], source["official_index"]) == (300.0, 700)
    assert source["probe"]["steps"] == 7
    assert source["reference"]["id"] == "exact"
    assert source["clip"]["window"] == {"start": 0, "stride": 1, "count": 5}


def test_a_second_look_at_a_cached_cell_calls_no_backbone_and_says_the_same(tiny: Any) -> None:
    first = summary(tiny)
    assert (tiny.backbone.calls, tiny.backbone.encoder_calls) == (1, 1)
    again = stages(tiny)
    assert (tiny.backbone.calls, tiny.backbone.encoder_calls) == (1, 1)
    assert [type(stage) for stage in again] == WITH_PROBE
    assert again[-1].summary["cached"] == {"latents": None, "features": True, "prediction": True}
    assert again[1].cached is None  # nobody asked the store for latents
    for name in ("point_error", "depth_error", "auc30", "alignment", "pck", "per_frame"):
        assert again[-1].summary[name] == first[name]


def test_a_stored_comparison_equals_the_computed_one(tiny: Any) -> None:
    first, second = (
        next(s.report for s in stages(tiny) if isinstance(s, Compared)) for _ in range(2)
    )
    assert first is not second
    assert vars(first).keys() == vars(second).keys()
    for name in ("point_error", "depth_error", "auc5", "auc30", "depth_scale", "provenance"):
        assert getattr(first, name) == getattr(second, name), name
    assert first.per_frame == second.per_frame
    for name in ("point_error_map", "depth_error_map"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for name in ("scale", "rotation", "translation"):
        np.testing.assert_array_equal(
            getattr(first.alignment, name), getattr(second.alignment, name)
        )


def test_a_look_at_a_cached_cell_needs_no_model_and_no_torch(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = summary(tiny)

    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(registry, "load", refuse)
    known = replace(
        registry._entries["tiny"], hashes=lambda target: Hashes("tiny-1", "tiny-encoder-1")
    )
    monkeypatch.setitem(registry._entries, "tiny", known)
    monkeypatch.setattr(loaded, "models", {})
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails from here on
    found = summary(tiny)
    assert found["cached"] == {"latents": None, "features": True, "prediction": True}
    assert found["point_error"] == expected["point_error"]
    assert found["per_frame"] == expected["per_frame"]


def test_another_sigma_reuses_the_latents_but_not_the_features(tiny: Any) -> None:
    summary(tiny)
    found = summary(tiny, sigma=0.5)
    assert found["cached"] == {"latents": True, "features": False, "prediction": False}
    assert (tiny.backbone.calls, tiny.backbone.encoder_calls) == (2, 1)


@pytest.mark.parametrize("change", [{"layer": 2}, {"sigma": 0.5}, {"seed": 1}, {"start": 1}])
def test_another_cell_seed_or_window_changes_the_points(
    tiny: Any, change: dict[str, object]
) -> None:
    def points(**changes: object) -> np.ndarray:
        found = next(s for s in stages(tiny, **changes) if isinstance(s, Predicted))
        assert found.reconstruction is not None
        return found.reconstruction.points

    assert not np.array_equal(points(), points(**change))


def test_layers_asked_for_beside_are_kept_from_the_same_pass(tiny: Any) -> None:
    stages(tiny, also_layers=(0, 2))
    found = next(s for s in stages(tiny, layer=2) if isinstance(s, FeaturesReady))
    assert found.cached
    assert found.features.layer == 2
    assert tiny.backbone.calls == 1


def test_a_negative_layer_counts_from_the_end_and_shares_the_cache(tiny: Any) -> None:
    stages(tiny, layer=2)
    assert summary(tiny, layer=-1)["cached"]["features"]


def test_a_cell_without_a_probe_says_which_cells_have_one_and_still_corresponds(
    tiny: Any,
) -> None:
    found = stages(tiny, layer=0, sigma=0.3)
    assert not any(isinstance(stage, FramePredicted) for stage in found)
    predicted = next(stage for stage in found if isinstance(stage, Predicted))
    assert predicted.reconstruction is None
    assert "layer 1: sigma 0.3, 0.5; layer 2: sigma 0.3" in (predicted.reason or "")
    last = found[-1].summary
    assert last["point_error"] is None
    assert last["correspondence_error_px"] is not None


def test_a_probe_of_other_weights_is_refused_and_the_look_goes_on(tiny: Any) -> None:
    card = tiny.assets / "probes" / "tiny" / "L01_S0.30.json"
    card.write_text(card.read_text().replace("tiny-1", "tiny-2"))
    found = stages(tiny)
    predicted = next(stage for stage in found if isinstance(stage, Predicted))
    assert predicted.reconstruction is None
    assert "trained on other weights" in (predicted.reason or "")
    assert found[-1].summary["provenance"]["probe"] is None


def test_a_clip_without_a_reference_has_no_metrics_and_says_so(
    tiny: Any, make_video: Callable[..., Path]
) -> None:
    other = make_video("upload.mp4", count=6, size=(80, 80))
    found = stages(tiny, path=other)
    referenced = next(stage for stage in found if isinstance(stage, Referenced))
    assert referenced.reconstruction is None
    assert "no reference" in (referenced.note or "")
    last = found[-1].summary
    for name in ("point_error", "depth_error", "auc30", "correspondence_error_px", "alignment"):
        assert last[name] is None, name
    assert last["provenance"]["reference"] is None


def test_a_single_frame_has_no_pose_metrics_and_no_nan(tiny: Any) -> None:
    found = summary(tiny, count=1)
    assert found["auc5"] is None
    assert found["point_error"] is not None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("after", range(len(WITH_PROBE) - 1))
def test_stop_ends_a_look_after_any_stage_and_the_next_look_is_whole(tiny: Any, after: int) -> None:
    seen: list[Any] = []

    def until_stopped() -> None:
        for stage in look(tiny.request, store=tiny.store, should_stop=lambda: len(seen) > after):
            seen.append(stage)

    with pytest.raises(Cancelled):
        until_stopped()
    assert len(seen) == after + 1
    assert not list(tiny.store.root.rglob("*.tmp"))
    assert [type(stage) for stage in stages(tiny)] == WITH_PROBE


def test_an_error_in_the_middle_stores_nothing_of_the_unfinished_step(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import explorer.probe.predict as predict

    def broken(*_: object) -> Any:
        yield from ()
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(predict, "predict_frames", broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            stages(tiny)
    kinds = sorted(path.name for path in tiny.store.root.iterdir())
    assert kinds == ["features", "latents"]
    assert summary(tiny)["point_error"] is not None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"backbone": "nothing"}, BackboneError, "tiny"),
        ({"layer": 7}, BackboneError, "layers 0 to 2"),
        ({"sigma": 1.5}, BackboneError, "sigma"),
        ({"count": 4}, BackboneError, "choose 1"),
        ({"reference": "guess"}, ReferenceError3D, "exact"),
        ({"path": "missing.mp4"}, ClipError, "does not exist"),
    ],
)
def test_bad_input_is_one_typed_error_before_any_work(
    tiny: Any, change: dict[str, object], error: type[EmergeError], message: str
) -> None:
    with pytest.raises(error, match=message):
        stages(tiny, **change)
    assert tiny.backbone.calls == tiny.backbone.encoder_calls == 0
    assert not tiny.store.root.exists()


def test_the_recording_holds_every_slot_and_its_points_give_the_reported_error(
    tiny: Any, tmp_path: Path
) -> None:
    from explorer.metrics.points import point_error

    recording = Recording("test", path=tmp_path / "run.rrd")
    for stage in look(tiny.request, store=tiny.store):
        recording.on_stage(stage)
    recording.close()
    frames = points_by_frame(tmp_path / "run.rrd")
    assert sorted(frames) == [0, 1]
    predicted, reference, known = [], [], []
    for frame in frames.values():
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
    assert stage.summary["point_error"] == pytest.approx(error, abs=1e-4)
    assert not all(mask.all() for mask in known)


@pytest.mark.parametrize("change", [{"layer": 2}, {"sigma": 0.5}])
def test_another_cell_records_other_points(
    tiny: Any, tmp_path: Path, change: dict[str, object]
) -> None:
    found = []
    for name, changes in (("a", {}), ("b", change)):
        recording = Recording(name, path=tmp_path / f"{name}.rrd")
        for stage in look(tiny.ask(**changes), store=tiny.store):
            recording.on_stage(stage)
        recording.close()
        found.append(points_by_frame(tmp_path / f"{name}.rrd")[1])
    assert found[0].prediction is not None
    assert found[1].prediction is not None
    assert not np.allclose(found[0].prediction, found[1].prediction)
    assert np.array_equal(found[0].reference, found[1].reference)


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_what_is_shown_is_what_the_backbone_saw_and_its_exact_geometry_fits(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, make_video: Callable[..., Path], fit: str
) -> None:
    from explorer.references import exact

    card = replace(tiny.backbone.card, fit=fit)
    entry = replace(registry._entries["tiny"], card=card)
    monkeypatch.setitem(registry._entries, "tiny", entry)
    seen: list[Any] = []
    encode = tiny.backbone.encode
    monkeypatch.setattr(
        tiny.backbone, "encode", lambda clip, **rest: seen.append(clip) or encode(clip, **rest)
    )
    video = make_video("portrait.mp4", count=6, size=(160, 120))
    (geometry,) = set(exact._registered.values())
    portrait = geometry.with_name("portrait.safetensors")
    write_depth(portrait, 6, (160, 120))
    source_hash = load_clip(video, count=1).source_hash
    monkeypatch.setattr(exact, "_registered", {source_hash: portrait})
    found = stages(tiny, path=video)
    (shown,) = (stage.clip for stage in found if isinstance(stage, Decoded))
    np.testing.assert_array_equal(shown.frames, seen[0].frames)
    assert shown.size == (64, 96)
    assert shown.crop == {"crop": (40, 0, 80, 120), "stretch": (0, 0, 160, 120)}[fit]
    provenance = found[-1].summary["provenance"]["clip"]
    assert (provenance["fit"], provenance["source_size"]) == (fit, [160, 120])
    (stage,) = (stage for stage in found if isinstance(stage, Referenced))
    # the focal length of the source is 100 pixels each way
    expected = {"crop": (80.0, 80.0), "stretch": (80.0, 40.0)}[fit]
    focal = np.diag(stage.full.cameras.intrinsics[0])[:2]
    assert focal == pytest.approx(expected)


def write_depth(path: Path, count: int, size: tuple[int, int]) -> None:
    """A plane in front of a camera that moves sideways, with a focal length of 100 pixels."""
    height, width = size
    pose = np.tile(np.eye(4)[:3], (count, 1, 1))
    pose[:, 0, 3] = -0.05 * np.arange(count)
    matrix = np.array([[100.0, 0, width / 2], [0, 100.0, height / 2], [0, 0, 1]])
    save_geometry(
        path,
        depth=np.full((count, *size), 2.0, dtype=np.float32),
        surface=np.zeros((count, *size), dtype=np.uint8),
        cam_from_world=pose.astype(np.float32),
        intrinsics=np.tile(matrix, (count, 1, 1)).astype(np.float32),
        attributes={},
    )
