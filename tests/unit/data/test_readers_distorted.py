"""Readers of cameras whose lenses bend straight lines."""

from __future__ import annotations

import json
from pathlib import Path

import dataset_samples as samples
import numpy as np
import pytest

from explorer.data.dataset import open_dataset
from explorer.data.readers._tum_camera import calibration
from explorer.errors import DatasetError

SIZE = (48, 64)


def write_ramp(folder: Path, *, depth_size: tuple[int, int], k1: float) -> None:
    """Depth grows to the right and down; red is 50 a metre, at the pixel that measured it."""
    frames = []
    for number in range(2):
        for size, name in ((SIZE, "images"), (depth_size, "depth")):
            y, x = (np.mgrid[: size[0], : size[1]] + 0.5) / np.array(size)[:, None, None]
            metres = 1 + 2 * x + y
            picture = np.repeat(np.rint(50 * metres)[..., None], 3, axis=-1).astype(np.uint8)
            image = picture if name == "images" else samples.millimetres(metres)
            samples.write_png(folder / name / f"{number}.png", image)
        pose = np.eye(4).tolist()
        entry = {"file_path": f"images/{number}", "transform_matrix": pose}
        frames.append({**entry, "depth_file_path": f"depth/{number}.png"})
    camera = {"camera_angle_x": 1.2, "k1": k1}
    (folder / "transforms.json").write_text(json.dumps({**camera, "frames": frames}))


@pytest.mark.parametrize("depth_size", [SIZE, (96, 128), (24, 32)])
def test_pictures_and_depth_of_any_size_are_straightened_alike(
    depth_size: tuple[int, int], tmp_path: Path
) -> None:
    write_ramp(tmp_path / "bent", depth_size=depth_size, k1=0.4)
    scene = open_dataset(None, tmp_path / "bent").scene()
    clip = scene.clip(count=None, size=None)
    found = scene.reconstruction(clip)
    depth = found.depth * found.provenance["unit"]
    both = found.valid & (clip.frames[..., 0] > 0)
    assert 0.5 < both.mean() < 0.95  # straightened, the corners come from outside
    off = np.abs(depth - clip.frames[..., 0] / 50)[both]
    step = 2 / min(depth_size[1], SIZE[1])  # of a depth map's pixel
    assert np.quantile(off, 0.99) < 1.3 * step  # half a pixel each way, and whole grey levels
    write_ramp(tmp_path / "straight", depth_size=depth_size, k1=0.0)
    other = open_dataset(None, tmp_path / "straight").scene().clip(count=None, size=None)
    moved = np.abs(other.frames[..., 0].astype(int) - clip.frames[..., 0])[found.valid]
    assert moved.max() > 3 * 50 * 2 / SIZE[1]  # by more than three pixels somewhere


def test_what_is_taken_out_is_part_of_the_hash(tmp_path: Path) -> None:
    hashes = set()
    for k1 in (0.0, 0.1, 0.2):
        write_ramp(tmp_path / f"{k1}", depth_size=SIZE, k1=k1)
        hashes.add(open_dataset(None, tmp_path / f"{k1}").scene().clip(count=2).content_hash)
    assert len(hashes) == 3


def test_angles_of_view_give_the_focal_length_of_the_pictures_there_are(tmp_path: Path) -> None:
    write_ramp(tmp_path, depth_size=SIZE, k1=0.0)
    matrix = open_dataset(None, tmp_path).scene().view(0).intrinsics
    assert matrix[0, 0] == matrix[1, 1] == pytest.approx(32 / np.tan(0.6))
    assert tuple(matrix[:2, 2]) == (32, 24)


def test_tums_cameras_are_the_published_ones() -> None:
    first = calibration(Path("rgbd_dataset_freiburg1_desk"))
    # published with the first pixel's centre at 0
    np.testing.assert_allclose(first.color.intrinsics[:2, 2], [319.1, 255.8])
    assert first.color.distortion == (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)
    assert first.color.size == (480, 640)
    assert first.depth == first.color  # registered by the driver
    assert calibration(Path("rgbd_dataset_freiburg3_cabinet")).color.straight
    with pytest.raises(DatasetError, match="does not say which camera"):
        calibration(Path("my_recording"))


def test_recordings_of_one_hall_are_of_one_place(tmp_path: Path) -> None:
    for name in ("freiburg1_desk", "freiburg1_desk2", "freiburg2_xyz", "freiburg3_cabinet"):
        folder = tmp_path / f"rgbd_dataset_{name}"
        folder.mkdir()
        for each in ("rgb", "depth", "groundtruth"):
            (folder / f"{each}.txt").touch()
    places = [entry.place for entry in open_dataset("tum", tmp_path).entries]
    assert places[0] == places[1] != places[2] == places[3]
    with pytest.raises(DatasetError, match="rgb.txt lists no files"):
        open_dataset("tum", tmp_path).scene("rgbd_dataset_freiburg2_xyz")
