from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorer.camera import Cameras, unproject
from explorer.clip import Clip, clip_from_frames
from explorer.features import Features
from explorer.look.stages import (
    Compared,
    Decoded,
    FeaturesReady,
    FramePredicted,
    Judged,
    Predicted,
    Referenced,
)
from explorer.reconstruction import Reconstruction
from explorer.recording import (
    FRUSTUM_DEPTH,
    Recording,
    blueprint,
    frustum,
    points_by_frame,
)
from explorer.recording.layout import DEPTH_RANGE, ERROR_RANGE, TIMELINE
from explorer.references.agreement import Agreement
from explorer.report import Alignment, Report

SIZE = (8, 12)
FRAMES = np.array([0, 1, 5])


@pytest.fixture
def clip() -> Clip:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 16, 24, 3), dtype=np.uint8)
    return clip_from_frames(pixels, name="noise")


@pytest.fixture
def scene() -> Reconstruction:
    """Three frames of a bumpy wall, the first row unknown."""
    height, width = SIZE
    depth = np.random.default_rng(1).uniform(1, 2, (3, height, width)).astype(np.float32)
    matrix = np.array([[10, 0, width / 2], [0, 10, height / 2], [0, 0, 1]], dtype=np.float32)
    pose = np.tile(np.eye(4, dtype=np.float32)[:3], (3, 1, 1))
    pose[:, 0, 3] = [0.0, -0.5, -1.0]
    cameras = Cameras(pose, np.tile(matrix, (3, 1, 1)), SIZE)
    confidence = np.ones_like(depth)
    confidence[:, 0] = 0
    return Reconstruction(FRAMES, depth, unproject(depth, cameras), confidence, cameras, "test")


def features() -> Features:
    return Features(
        values=np.zeros((3, 2, 3, 4), dtype=np.float16),
        frame_to_slot=np.array([0, 1, 1, 1, 1, 2, 2, 2, 2]),
        slot_frames=FRAMES,
        backbone="test",
        backbone_hash="test",
        layer=0,
        sigma=0.0,
        timestep=0.0,
        official_index=999,
        seed=0,
    )


def predicted(scene: Reconstruction) -> list[FramePredicted]:
    return [
        FramePredicted(
            seconds=0.0,
            slot=slot,
            frame=int(scene.frames[slot]),
            depth=scene.depth[slot],
            points=scene.points[slot],
            confidence=scene.confidence[slot],
            cam_from_world=scene.cameras.cam_from_world[slot],
            intrinsics=scene.cameras.intrinsics[slot],
            cached=False,
        )
        for slot in range(len(scene.frames))
    ]


def everything(clip: Clip, scene: Reconstruction) -> list[Any]:
    errors = np.full(scene.depth.shape, 0.1)
    errors[:, 0] = np.nan
    still = Alignment(1.0, np.eye(3), np.zeros(3))
    report = Report(0.1, 0.1, 1.0, 1.0, still, 1.0, errors, errors, [])
    return [
        Decoded(seconds=0.0, clip=clip),
        FeaturesReady(seconds=0.0, features=features(), cached=False),
        *predicted(scene),
        Predicted(seconds=0.0, reconstruction=scene, reason=None, cached=False),
        Referenced(seconds=0.0, reconstruction=scene, full=scene, note=None),
        Compared(seconds=0.0, report=report, correspondence=None),
    ]


def rows(path: Path) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """(frame, components) of every row that is not static, by entity."""
    from rerun.chunk import RrdReader

    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for chunk in RrdReader(path).stream():
        if not chunk.is_static and TIMELINE in chunk.timeline_names:
            for row in chunk.to_record_batch().to_pylist():
                found.setdefault(chunk.entity_path, []).append((int(row[TIMELINE]), row))
    return found


def labels(path: Path) -> dict[str, str]:
    """The words of every static entity that has any."""
    from rerun.chunk import RrdReader

    return {
        chunk.entity_path: text
        for chunk in RrdReader(path).stream()
        if chunk.is_static
        for row in chunk.to_record_batch().to_pylist()
        for name, value in row.items()
        if name.endswith(":labels")
        for text in value
    }


def test_panes_that_stay_empty_say_why_and_others_say_nothing(
    tmp_path: Path, recorded: Path, clip: Clip, scene: Reconstruction
) -> None:
    assert labels(recorded) == {}
    uploaded = [
        *everything(clip, scene)[:-2],
        Referenced(seconds=0.0, reconstruction=None, full=None, note="nobody knows it"),
        Compared(seconds=0.0, report=None, correspondence=None),
    ]
    no_probe = [
        *everything(clip, scene)[:2],
        Predicted(seconds=0.0, reconstruction=None, reason="none", cached=False),
    ]
    found = []
    for name, stages in (("uploaded", uploaded), ("no-probe", no_probe)):
        recording = Recording("test", path=tmp_path / f"{name}.rrd")
        for stage in stages:
            recording.on_stage(stage)
        recording.close()
        found.append(labels(tmp_path / f"{name}.rrd"))
    assert found == [
        {
            "/reference/note": "no reference",
            "/depth/reference/note/word": "no reference",
            "/error/note/word": "nothing to compare",
        },
        {
            "/prediction/note": "no probe for this cell",
            "/depth/prediction/note/word": "no probe for this cell",
        },
    ]


@pytest.fixture
def recorded(tmp_path: Path, clip: Clip, scene: Reconstruction) -> Path:
    recording = Recording("test", path=tmp_path / "run.rrd")
    for stage in everything(clip, scene):
        recording.on_stage(stage)
    recording.close()
    return tmp_path / "run.rrd"


def test_disputed_pixels_are_a_layer_over_the_error(
    tmp_path: Path, clip: Clip, scene: Reconstruction
) -> None:
    *before, compared = everything(clip, scene)
    distance = np.zeros(scene.depth.shape)
    distance[1, 2:5, 3:9] = 1.0
    agreed = Agreement(compared.report, distance, 0.5)
    judged = Judged(seconds=0.0, judge="other", agreement=agreed, provenance={}, note=None)
    path = tmp_path / "judged.rrd"
    recording = Recording("test", path=path)
    for stage in (*before, judged, compared):
        recording.on_stage(stage)
    recording.close()
    found = {}
    for frame, row in rows(path)["/error/disputed"]:
        (buffer,) = next(value for name, value in row.items() if name.endswith(":buffer"))
        found[frame] = np.asarray(buffer, dtype=np.uint8).reshape(SIZE)
    assert sorted(found) == FRAMES.tolist()
    for slot, frame in enumerate(FRAMES.tolist()):
        np.testing.assert_array_equal(found[frame] > 0, agreed.disagree[slot])


def test_every_entity_has_a_row_at_every_slots_frame(recorded: Path) -> None:
    found = {entity: sorted(time for time, _ in each) for entity, each in rows(recorded).items()}
    slots = FRAMES.tolist()
    assert found.pop("/input") == list(range(6))
    assert found == {
        f"/{entity}": slots
        for entity in (
            "prediction/points",
            "prediction/camera",
            "prediction/frustums",
            "reference/points",
            "reference/camera",
            "reference/frustums",
            "depth/prediction",
            "depth/reference",
            "error",
        )
    }


def test_the_timeline_ends_where_all_panes_show_the_same_frame(recorded: Path) -> None:
    ends = {entity: max(time for time, _ in each) for entity, each in rows(recorded).items()}
    assert set(ends.values()) == {int(FRAMES[-1])}


def test_the_first_input_frame_is_there_before_the_features(clip: Clip, tmp_path: Path) -> None:
    recording = Recording("test")
    recording.on_stage(Decoded(seconds=0.0, clip=clip))
    (tmp_path / "first.rrd").write_bytes(recording.read())
    recording.on_stage(FeaturesReady(seconds=0.0, features=features(), cached=True))
    (tmp_path / "rest.rrd").write_bytes(recording.read())
    times = [
        sorted(time for time, _ in rows(tmp_path / name)["/input"])
        for name in ("first.rrd", "rest.rrd")
    ]
    assert times == [[0], [1, 2, 3, 4, 5]]


def test_points_come_back_exactly_in_row_major_order(recorded: Path, scene: Reconstruction) -> None:
    found = points_by_frame(recorded)
    assert list(found) == FRAMES.tolist()
    for slot, frame in enumerate(found.values()):
        assert frame.prediction is not None
        assert frame.reference_depth is not None
        assert np.array_equal(frame.prediction, scene.points[slot].reshape(-1, 3))
        assert np.array_equal(frame.reference_depth > 0, scene.valid[slot])
        assert np.array_equal(frame.reference, scene.points[slot][scene.valid[slot]])


def test_both_depth_panes_have_one_range_whatever_the_prediction_says(
    tmp_path: Path, clip: Clip, scene: Reconstruction
) -> None:
    recording = Recording("test", path=tmp_path / "run.rrd")
    small = replace(scene, depth=scene.depth / 100)
    for stage in everything(clip, scene)[:2] + predicted(small) + everything(clip, scene)[5:]:
        recording.on_stage(stage)
    recording.close()
    found = rows(tmp_path / "run.rrd")
    ranges = [
        tuple(row["DepthImage:depth_range"][0])
        for entity in ("/depth/prediction", "/depth/reference")
        for _, row in found[entity]
    ]
    assert ranges == [DEPTH_RANGE] * 6


def test_frustums_are_orange_for_the_prediction_and_green_for_the_reference(
    recorded: Path,
) -> None:
    found = rows(recorded)

    def rgb(entity: str, component: str) -> tuple[int, int, int]:
        packed = found[entity][0][1][component][0]
        return packed >> 24, packed >> 16 & 255, packed >> 8 & 255

    for kind, component in (("camera", "Pinhole:color"), ("frustums", "LineStrips3D:colors")):
        red, green, blue = rgb(f"/prediction/{kind}", component)
        assert red > green > blue
        red, green, blue = rgb(f"/reference/{kind}", component)
        assert green > red
        assert green > blue


def test_bytes_are_complete_files_that_each_hold_only_what_is_new(
    tmp_path: Path, clip: Clip, scene: Reconstruction
) -> None:
    recording = Recording("test")
    seen = []
    for stage in everything(clip, scene):
        recording.on_stage(stage)
        piece = tmp_path / f"{len(seen)}.rrd"
        piece.write_bytes(recording.read())
        seen.append(sorted(points_by_frame(piece)) if piece.stat().st_size else [])
    assert seen == [[], [], [0], [1], [5], [], [0, 1, 5], []]
    assert recording.read() == b""


def test_stages_logged_from_different_threads_keep_their_frames(
    tmp_path: Path, clip: Clip, scene: Reconstruction
) -> None:
    recording = Recording("test", path=tmp_path / "run.rrd")
    for stage in everything(clip, scene):
        worker = threading.Thread(target=recording.on_stage, args=(stage,))
        worker.start()
        worker.join()
    recording.close()
    assert list(points_by_frame(tmp_path / "run.rrd")) == FRAMES.tolist()


def test_two_recordings_of_one_process_stay_apart(clip: Clip) -> None:
    first, second = Recording("a"), Recording("b")
    first.read(), second.read()
    first.on_stage(Decoded(seconds=0.0, clip=clip))
    assert first.id != second.id
    assert first.read()
    assert second.read() == b""


def test_a_file_appears_only_when_it_is_closed(tmp_path: Path, clip: Clip) -> None:
    recording = Recording("test", path=tmp_path / "run.rrd")
    recording.on_stage(Decoded(seconds=0.0, clip=clip))
    assert not (tmp_path / "run.rrd").exists()
    recording.close()
    assert [path.name for path in tmp_path.iterdir()] == ["run.rrd"]


def test_a_discarded_recording_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, clip: Clip
) -> None:
    (tmp_path / "run.rrd").write_bytes(b"old")
    recording = Recording("test", path=tmp_path / "run.rrd")
    recording.on_stage(Decoded(seconds=0.0, clip=clip))
    recording.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["run.rrd"]
    assert (tmp_path / "run.rrd").read_bytes() == b"old"


def test_a_recording_that_cannot_be_put_in_its_place_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.rrd").write_bytes(b"old")
    recording = Recording("test", path=tmp_path / "run.rrd")
    recording.on_stage(Decoded(seconds=0.0, clip=clip))

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        recording.close()
    assert [path.name for path in tmp_path.iterdir()] == ["run.rrd"]
    assert (tmp_path / "run.rrd").read_bytes() == b"old"


def test_a_folder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        Recording("test", path=tmp_path / "runs")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_geometry_before_the_clip_is_refused(scene: Reconstruction) -> None:
    with pytest.raises(ValueError, match="clip"):
        Recording("test").on_stage(predicted(scene)[0])


def test_a_frustum_starts_at_the_camera_and_its_plane_projects_to_the_image_corners(
    scene: Reconstruction,
) -> None:
    from explorer.camera import project

    camera = scene.cameras.select([2])
    plane, *edges = frustum(camera)
    assert all(np.allclose(edge[0], camera.centers[0]) for edge in edges)
    pixels, depth = project(plane, camera.cam_from_world[0], camera.intrinsics[0])
    height, width = SIZE
    corners = [[0, 0], [width, 0], [width, height], [0, height], [0, 0]]
    assert np.allclose(pixels, corners, atol=1e-4)
    assert np.allclose(depth, FRUSTUM_DEPTH)


def test_the_blueprint_has_both_worlds_four_pictures_and_starts_both_eyes_alike() -> None:
    def views(part: Any) -> list[Any]:
        return (
            [part, *(view for child in part.contents for view in views(child))]
            if (hasattr(part, "contents") and not isinstance(part.contents, str))
            else [part]
        )

    found = [part for part in views(blueprint().root_container) if hasattr(part, "origin")]
    assert [view.origin for view in found] == [
        "/prediction",
        "/reference",
        "/input",
        "/depth/prediction",
        "/depth/reference",
        "/error",
    ]
    worlds = [view.properties for view in found[:2]]
    assert str(worlds[0]["EyeControls3D"]) == str(worlds[1]["EyeControls3D"])
    assert all("VisibleTimeRanges" in each for each in worlds)
    assert str(ERROR_RANGE[1]) in found[-1].name
