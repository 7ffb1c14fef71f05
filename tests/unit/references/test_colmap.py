"""COLMAP as a reference: on a rendered clip with known cameras, and on clips it cannot use."""

from __future__ import annotations

import importlib.util
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from explorer import references
from explorer.camera import project
from explorer.clip import Clip, clip_from_frames
from explorer.errors import Cancelled, NoReconstruction, ReferenceError3D
from explorer.metrics import compare
from explorer.metrics.align import similarity
from explorer.metrics.pose import auc, pair_errors
from explorer.reconstruction import Reconstruction
from explorer.references import Context, colmap, estimate
from explorer.references import _colmap_steps as steps
from explorer.store import Store

ORBIT = 3_000_363
"""Seed of a textured scene with more parallax than most."""


@pytest.fixture(scope="module")
def rendered() -> tuple[Clip, np.ndarray, float]:
    """17 textured frames, their true cam_from_world and their focal length in pixels."""
    from explorer.data.world.render import render
    from explorer.data.world.scene import sample_scenes

    found = render(sample_scenes([ORBIT]), height=144, width=256)
    clip = clip_from_frames(found.images[0, :17].numpy(), name="orbit")
    return clip, found.cam_from_world[0, :17].numpy(), float(found.intrinsics[0, 0, 0])


@pytest.fixture(scope="module")
def found(rendered: tuple[Clip, np.ndarray, float]) -> Reconstruction:
    made = references.reconstruct("colmap", rendered[0])
    assert made is not None
    return made


def test_cameras_of_a_rendered_clip_agree_with_the_exact_ones(
    rendered: tuple[Clip, np.ndarray, float], found: Reconstruction
) -> None:
    _, exact, focal = rendered
    assert found.frames.tolist() == list(range(17))
    errors = pair_errors(found.cameras.cam_from_world, exact)
    assert np.median(errors.rotation) < 1.0
    assert auc(errors.worst, 30) > 0.85
    assert found.cameras.intrinsics[0, 0, 0] == pytest.approx(focal, rel=0.15)
    # after one similarity the centres lie within a few percent of the path's length
    centers = -np.einsum("sji,sj->si", exact[:, :, :3], exact[:, :, 3]).astype(np.float64)
    aligned = similarity(found.cameras.centers, centers).apply(found.cameras.centers)
    path = np.linalg.norm(centers[-1] - centers[0])
    assert np.linalg.norm(aligned - centers, axis=1).mean() < 0.03 * path


def test_every_known_pixel_holds_a_point_that_projects_into_it(found: Reconstruction) -> None:
    assert found.sparse
    assert found.size == (144, 256)
    assert 0 < found.valid.mean() < 0.05
    for slot in (0, 7, 16):
        y, x = np.nonzero(found.valid[slot])
        pixels, z = project(
            found.points[slot, y, x].astype(np.float64),
            found.cameras.cam_from_world[slot],
            found.cameras.intrinsics[slot],
        )
        off = np.abs(pixels - np.stack([x + 0.5, y + 0.5], axis=1))
        assert off.max() <= 0.5 + 1e-3
        np.testing.assert_allclose(z, found.depth[slot, y, x], rtol=1e-4)


def test_provenance_says_how_well_it_went(found: Reconstruction) -> None:
    facts = found.provenance
    assert (facts["registered"], facts["frames"], facts["missing_frames"]) == (17, 17, [])
    assert facts["points"] > 100
    assert 0 < facts["reprojection_error_px"] < 1.0
    assert facts["parallax_degrees"] > colmap.MIN_PARALLAX
    said = f"it registered 17 of 17 frames at {facts['reprojection_error_px']:.2f} px"
    assert said in str(references.note("colmap", found))


def test_the_best_judge_at_hand_is_colmap_here_and_it_finds_the_same_again(
    rendered: tuple[Clip, np.ndarray, float],
    found: Reconstruction,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in estimate.JUDGES[1:]:
        other = replace(references._references[name], missing=None, reference=nobody)
        monkeypatch.setitem(references._references, name, other)
    again = references.reconstruct("estimate", rendered[0], Context(frames=(0, 4, 8, 12, 16)))
    assert again is not None
    assert (again.source, again.provenance["judge"], again.sparse) == ("colmap", "colmap", True)
    assert references.note("estimate", again) == references.note("colmap", found)
    np.testing.assert_array_equal(again.depth, found.depth)
    np.testing.assert_array_equal(again.cameras.cam_from_world, found.cameras.cam_from_world)


def nobody(clip: Clip, context: Context) -> None:
    pytest.fail("COLMAP registers this clip: nobody else is asked")


def test_what_was_found_is_kept_and_found_again(
    rendered: tuple[Clip, np.ndarray, float],
    found: Reconstruction,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = Context(store=Store(tmp_path))
    monkeypatch.setattr(colmap, "_reconstruct", lambda clip, context: found)
    references.reconstruct("colmap", rendered[0], context)
    monkeypatch.setattr(colmap, "_reconstruct", None)
    again = references.reconstruct("colmap", rendered[0], context)
    assert again is not None
    assert again.sparse
    assert again.provenance == found.provenance
    np.testing.assert_array_equal(again.points, found.points)


def noise(frames: int, *, size: tuple[int, int] = (96, 160), still: bool = True) -> Clip:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 255, (1 if still else frames, size[0] // 4, size[1] // 4, 3))
    pictures = np.repeat(np.repeat(blocks, 4, axis=1), 4, axis=2).astype(np.uint8)
    every = np.repeat(pictures, frames, axis=0) if still else pictures
    return clip_from_frames(every, name="noise")


@pytest.mark.parametrize(
    ("clip", "reason"),
    [
        (noise(2), "3 frames or more"),
        (clip_from_frames(np.full((4, 96, 160, 3), 99, np.uint8), name="grey"), "texture"),
        (noise(4, still=False), "too few matches"),
        (noise(4), "parallax|movement"),
    ],
    ids=["two frames", "no texture", "unrelated frames", "a still camera"],
)
def test_a_clip_that_cannot_be_reconstructed_says_why(clip: Clip, reason: str) -> None:
    with pytest.raises(NoReconstruction, match=reason):
        references.reconstruct("colmap", clip)


def test_a_clip_without_depth_in_any_pair_is_refused_before_any_mapping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(steps, "_map", None)
    with pytest.raises(NoReconstruction, match="in 100% of the 6 matched pairs"):
        references.reconstruct("colmap", noise(4))


@pytest.mark.parametrize(("step", "mapped"), [(0, False), (1, True)])
def test_a_far_scene_that_colmap_calls_flat_is_mapped(
    step: int, mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = noise(4).frames.copy()
    nearer = frames[0, 24:72, 30:130].copy()
    for number, frame in enumerate(frames):  # at most 3 pixels: within COLMAP's 4
        frame[24:72, 30 + step * number : 130 + step * number] = nearer
    begun: list[None] = []
    monkeypatch.setattr(steps, "_map", lambda *arguments: begun.append(None))
    with pytest.raises(NoReconstruction, match="in 100% of the 6 matched pairs"):
        references.reconstruct("colmap", clip_from_frames(frames, name="far"))
    assert bool(begun) is mapped


def test_what_was_found_under_other_limits_is_not_the_answer(
    found: Reconstruction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    context = Context(store=Store(tmp_path))
    monkeypatch.setattr(colmap, "_reconstruct", lambda clip, context: calls.append(None) or found)
    for name in ("MAX_TURN", "MAX_ERROR", "MIN_FEATURES"):
        references.reconstruct("colmap", noise(4), context)
        monkeypatch.setattr(colmap, name, 7)
    references.reconstruct("colmap", noise(4), context)
    assert len(calls) == 4


def test_that_a_clip_cannot_be_reconstructed_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(store=Store(tmp_path))
    with pytest.raises(NoReconstruction) as first:
        references.reconstruct("colmap", noise(2), context)
    monkeypatch.setattr(colmap, "_reconstruct", None)
    with pytest.raises(NoReconstruction) as again:
        references.reconstruct("colmap", noise(2), context)
    assert str(again.value) == str(first.value)


def model(**changes: object) -> object:
    """Three cameras in a row before 40 points, all seen by all."""
    pose = np.tile(np.eye(3, 4), (3, 1, 1))
    pose[:, 0, 3] = [0.0, -1.0, -2.0]
    points = np.random.default_rng(0).uniform([-1, -1, 4], [1, 1, 6], (40, 3))
    made = steps.Model(
        frames=np.arange(3),
        cam_from_world=pose,
        focal=200.0,
        points=points,
        observed=np.ones((3, 40), dtype=bool),
        reprojection_error=0.5,
    )
    return replace(made, **changes)


def reconstruct_from(models: list[object], monkeypatch: pytest.MonkeyPatch) -> Reconstruction:
    monkeypatch.setattr(steps, "run", lambda *_, **__: models)
    return colmap.reconstruct(noise(4, size=(144, 256)), Context())


def test_models_that_agree_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = reconstruct_from([model(), model(focal=220.0)], monkeypatch)
    assert made.provenance["missing_frames"] == [3]
    first = made.points[0][made.valid[0]]
    assert np.linalg.norm(first, axis=-1).mean() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ([model()], "unconfirmed"),
        ([model(), model(observed=np.arange(40) < np.full((3, 1), 9))], "unconfirmed"),
        ([model(), model(focal=500.0)], "ambiguous"),
        ([model(focal=4000.0), model(focal=3900.0)], r"implausible.*15\.6 widths"),
        (
            [model(), model(cam_from_world=model().cam_from_world * [[1, 1, 1, -1]])],
            "180 degrees apart",
        ),
        ([model(points=model().points + [0, 0, 200])] * 2, "too little parallax"),
        ([model(points=np.ones((9, 3)), observed=np.ones((3, 9), bool))] * 2, "9 points"),
    ],
    ids=[
        "one start",
        "a weak rival",
        "focal lengths",
        "a long lens",
        "reversed",
        "far away",
        "few points",
    ],
)
def test_a_model_that_may_be_wrong_is_refused(
    models: list[object], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoReconstruction, match=reason):
        reconstruct_from(models, monkeypatch)


def test_stop_ends_a_step_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    stop, begun = threading.Event(), threading.Event()

    def extract(database: Path, images: Path, features: int, token: object) -> None:
        begun.set()
        stop.set()
        while not token.is_cancelled:  # type: ignore[attr-defined]
            stop.wait(0.01)

    monkeypatch.setattr(steps, "_extract", extract)
    with pytest.raises(Cancelled):
        references.reconstruct("colmap", noise(4), Context(should_stop=stop.is_set))
    assert begun.is_set()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_wait_tells_the_step_to_end() -> None:
    told: list[bool] = []
    asked: list[None] = []

    def step(token: object) -> None:
        for _ in range(500):
            if token.is_cancelled:  # type: ignore[attr-defined]
                break
            time.sleep(0.01)
        told.append(token.is_cancelled)  # type: ignore[attr-defined]

    def interrupted() -> bool:
        asked.append(None)
        if len(asked) > 1:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        steps._stoppable(step, interrupted)
    assert told == [True]


def test_without_pycolmap_it_is_not_offered_and_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "colmap" in references.offered()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "colmap" not in references.offered()
    assert "colmap" in references.names()
    with pytest.raises(ReferenceError3D, match=r"pip install 'emerge3d\[colmap\]'"):
        references.reconstruct("colmap", noise(4))


def partly(reference: Reconstruction, frames: list[int]) -> Reconstruction:
    return reference.at_frames(np.array(frames))


def test_sparse_points_are_compared_where_they_are_and_frames_where_they_exist(
    found: Reconstruction,
) -> None:
    prediction = replace(found.at_frames(np.array([0, 1, 5])).resized(72, 128), sparse=False)
    lacking = partly(found, [0, 5, 9])
    report = compare(prediction, lacking)
    assert report.point_error < 1e-6
    assert report.provenance["frames"] == [0, 5]
    assert report.point_error_map.shape == prediction.depth.shape
    assert np.isnan(report.point_error_map[1]).all()
    assert np.isnan(report.per_frame[1]["point_error"])
    assert report.per_frame[1]["frame"] == 1.0
    assert report.per_frame[2]["point_error"] < 1e-6


def test_resizing_loses_no_sparse_point_but_those_behind_another(found: Reconstruction) -> None:
    small = found.resized(72, 128)
    y, x = np.nonzero(found.valid[0])
    cells = {(row // 2, column // 2) for row, column in zip(y, x, strict=True)}
    assert set(zip(*np.nonzero(small.valid[0]), strict=True)) == cells
