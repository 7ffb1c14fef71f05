"""A real clip with a depth camera: 7-Scenes RedKitchen, where it is at hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from explorer.camera import project
from explorer.cli import main
from explorer.clip import Clip
from explorer.data.dataset import open_dataset
from explorer.reconstruction import Reconstruction

NAME = "redkitchen_81f_320x240.npz"
STARTS = (0, 16, 32, 48, 64)


@pytest.fixture(scope="module")
def kitchen(media: Path) -> Path:
    path = media / NAME
    if not path.is_file():
        pytest.skip(f"there is no {NAME} among the real clips")
    return path


@pytest.fixture(scope="module")
def pairs(kitchen: Path) -> list[tuple[Clip, Reconstruction]]:
    """Pairs of neighbouring frames with their geometry, at the size they were stored in."""
    scene = open_dataset(None, kitchen).scene()
    clips = [scene.clip(start=start, count=2, size=None) for start in STARTS]
    return [(clip, scene.reconstruction(clip)) for clip in clips]


def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(H, W, 2) dense inverse search (Kroeger et al. 2016): pixels only, no geometry."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (first, second)]
    return np.asarray(search.calc(*grey, None))


def carried(found: Reconstruction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (H, W, 2) in the second frame of the first one's points, their depths there, and
    which points both frames see: the second's depth is theirs within 5 %."""
    height, width = found.size
    pixels, z = project(
        found.points[0].reshape(-1, 3).astype(np.float64),
        found.cameras.cam_from_world[1],
        found.cameras.intrinsics[1],
    )
    pixels, z = pixels.reshape(height, width, 2), z.reshape(height, width)
    inside = found.valid[0] & (z > 0) & (pixels >= 0).all(-1) & (pixels < [width, height]).all(-1)
    column, row = np.floor(np.where(inside[..., None], pixels, 0)).astype(int).transpose(2, 0, 1)
    there = found.depth[1][row, column]
    both = inside & (there > 0) & (np.abs(there - z) < 0.05 * z)
    return pixels, z, both


def flow_errors(clip: Clip, found: Reconstruction) -> tuple[np.ndarray, np.ndarray]:
    """(pixels between where points land and where flow finds them, pixels that flow goes), of
    points that both frames see and that flow there and back returns to within a pixel."""
    pixels, _, both = carried(found)
    there, back = flow(*clip.frames), flow(*clip.frames[::-1])
    y, x = np.mgrid[: clip.size[0], : clip.size[1]].astype(np.float32)
    x2, y2 = x + there[..., 0], y + there[..., 1]
    returned = there + cv2.remap(back, x2, y2, cv2.INTER_LINEAR, borderValue=(99.0, 99.0))
    sure = both & (np.linalg.norm(returned, axis=-1) < 1)
    off = np.linalg.norm(pixels - np.stack([x2, y2], axis=-1) - 0.5, axis=-1)
    return off[sure], np.linalg.norm(there, axis=-1)[sure]


def test_a_point_carried_into_the_next_frame_lands_where_optical_flow_finds_it(
    pairs: list[tuple[Clip, Reconstruction]],
) -> None:
    """Within 3 pixels in the median is asked for, at 320x240; 0.7 is what is measured."""
    found = [flow_errors(*pair) for pair in pairs]
    assert min(len(off) for off, _ in found) > 20_000
    assert np.median(np.concatenate([motion for _, motion in found])) > 5
    assert np.median(np.concatenate([off for off, _ in found])) < 1
    assert max(float(np.median(off)) for off, _ in found) < 2


def test_with_the_poses_swapped_it_lands_elsewhere(
    pairs: list[tuple[Clip, Reconstruction]],
) -> None:
    """So the test above can fail."""
    off = []
    for clip, found in pairs:
        swapped = replace(found, cameras=found.cameras.select([1, 0]))
        off.append(flow_errors(clip, swapped)[0])
    assert np.median(np.concatenate(off)) > 3


def test_a_point_carried_into_the_next_frame_has_the_depth_that_was_measured_there(
    pairs: list[tuple[Clip, Reconstruction]],
) -> None:
    for _, found in pairs:
        pixels, z, _ = carried(found)
        height, width = found.size
        inside = found.valid[0] & (pixels >= 0).all(-1) & (pixels < [width, height]).all(-1)
        column, row = np.floor(pixels[inside]).astype(int).T
        there = found.depth[1][row, column]
        off = np.abs(there / z[inside] - 1)[there > 0]
        assert np.median(off) < 0.01
        assert (off < 0.05).mean() > 0.9


def test_a_look_at_it_is_measured_against_the_depth_camera(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--backbone", "toy-wan", "--layer", "5", "--sigma", "0.3", "--count", "5"]
    places = ["--device", "cpu", "--cache", str(tmp_path), "--out", str(tmp_path / "look.rrd")]
    assert main(["look", str(kitchen), *words, *places, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for name in ("point_error", "depth_error", "correspondence_error_px"):
        assert 0 < found[name] < np.inf, name
    for name in ("auc5", "auc30", "pck"):
        assert 0 <= found[name] <= 1, name
    reference = found["provenance"]["reference"]
    assert (reference["id"], reference["geometry"]) == ("sensor", "depth camera")
    assert (reference["unit"], reference["unit_name"]) == (pytest.approx(2.02, abs=0.1), "m")
    assert any("the unit length is 2.0" in note for note in found["notes"])
    assert found["reference_consistency"]["mean"] > 0.95
    assert (tmp_path / "look.rrd").stat().st_size > 10_000
