"""A reference against itself."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sliding_scene import sliding

from explorer import references
from explorer.camera import unproject
from explorer.clip import load_clip
from explorer.references.consistency import consistency, summary

CLIPS = Path(__file__).resolve().parents[3] / "assets" / "clips"


def test_a_mean_below_the_limit_is_called_low(monkeypatch: pytest.MonkeyPatch) -> None:
    mean = consistency(sliding()).mean
    for limit, low in ((mean - 0.001, False), (mean + 0.001, True)):
        monkeypatch.setattr("explorer.references.consistency.LOW", limit)
        assert summary(sliding())["low"] is low


def test_static_geometry_confirms_itself_and_occlusions_do_not_count() -> None:
    found = consistency(sliding(sky=4), pixels=10**6)
    assert found.per_frame.min() > 0.97
    assert found.mean == pytest.approx(float(found.per_frame.mean()))
    assert (found.judged > 1000).all()


def test_what_moves_is_noticed() -> None:
    still = consistency(sliding(shift=0.3), pixels=10**6).mean
    found = consistency(sliding(shift=0.3, moving=True), pixels=10**6).mean
    # the box is 5 % of the picture and two thirds of it are missed where it should have gone
    assert found < still - 0.02


def test_wrong_cameras_are_noticed() -> None:
    scene = sliding(shift=0.3)
    pose = scene.cameras.cam_from_world.copy()
    pose[3, 2, 3] += 0.2  # a fifth of the unit too far back
    cameras = replace(scene.cameras, cam_from_world=pose)
    off = replace(scene, cameras=cameras, points=unproject(scene.depth, cameras))
    found = consistency(off)
    assert found.per_frame[3] < 0.1
    assert found.per_frame[[0, 5]].min() > 0.5
    assert found.mean < 0.8


def test_points_that_are_not_the_depth_are_noticed() -> None:
    scene = sliding()
    points = scene.points.copy()
    points[2] *= np.float32(1.2)
    found = consistency(replace(scene, points=points)).per_frame
    assert found[2] < 0.1
    assert found[[0, 1, 3, 4, 5]].min() > 0.95


def test_frames_that_see_nothing_of_each_other_have_no_score() -> None:
    scene = sliding()
    depth = scene.depth.copy()
    depth[4] = 0
    found = consistency(replace(scene, depth=depth))
    assert np.isnan(found.per_frame[4])
    assert found.judged[4] == 0
    assert np.isfinite(found.mean)


def test_sparse_references_have_no_consistency() -> None:
    with pytest.raises(ValueError, match="sparse"):
        consistency(replace(sliding(), sparse=True))


def test_a_shipped_clip_is_consistent_and_quick_to_judge() -> None:
    scene = references.reconstruct("exact", load_clip(CLIPS / "room-orbit-01.mp4"))
    assert scene is not None
    found = summary(scene)
    assert found["mean"] > 0.95
    assert [row["frame"] for row in found["per_frame"]] == list(range(17))
    spent = []
    for _ in range(3):
        begin = time.process_time()
        summary(scene)
        spent.append(time.process_time() - begin)
    assert min(spent) < 0.5
