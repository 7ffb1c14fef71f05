"""COLMAP's models: written by pycolmap and by hand, and what DL3DV makes of one."""

from __future__ import annotations

import struct
from pathlib import Path

import dataset_samples as samples
import numpy as np
import pytest
from dataset_samples import FRAMES, Truth

from explorer.camera import project
from explorer.data.colmap_model import ModelCamera, read_model
from explorer.data.dataset import open_dataset
from explorer.errors import DatasetError, NoReconstruction

FACTOR = 4  # the cameras are for pictures of four times the size


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """(w, x, y, z) as the eigenvector of the quadratic form that it maximises."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    form = np.array(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, d + b, c + g],
            [c - g, d + b, e - a - i, h + f],
            [d - b, c + g, h + f, i - a - e],
        ]
    )
    return np.linalg.eigh(form)[1][:, -1]


def observed_points(truth: Truth, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """((P, 3) points on the surfaces in the world, (P, T) whether a frame sees them)."""
    generator = np.random.default_rng(0)
    pose = truth.cameras.world_from_cam[0]
    world = truth.points() @ pose[:, :3].T + pose[:, 3]
    height, width = truth.cameras.size
    frame, row, column = (generator.integers(0, n, count) for n in (FRAMES, height, width))
    points = world[frame, row, column]
    seen = np.zeros((count, FRAMES), dtype=bool)
    for number in range(FRAMES):
        pixels, z = project(
            points, truth.cameras.cam_from_world[number], truth.cameras.intrinsics[number]
        )
        inside = (z > 0) & (pixels >= 0).all(axis=1) & (pixels < [width, height]).all(axis=1)
        at = np.floor(pixels[inside]).astype(int)
        seen[inside, number] = (
            np.abs(truth.depth[number][at[:, 1], at[:, 0]] / z[inside] - 1) < 0.01
        )
    return points, seen


def write_model(folder: Path, truth: Truth, *, binary: bool, skip: int | None = None) -> None:
    """cameras, images and points3D of the frames, after the format's documentation."""
    points, seen = observed_points(truth)
    height, width = (FACTOR * side for side in truth.cameras.size)
    matrix = FACTOR * truth.cameras.intrinsics[0]
    params = [matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2], 0.0, 0.0, 0.0, 0.0]
    frames = [number for number in range(FRAMES) if number != skip]
    poses = truth.cameras.cam_from_world
    numbers = [[*quaternion(poses[n, :, :3]), *poses[n, :, 3]] for n in frames]
    names = [f"frame_{n + 1:05d}.png" for n in frames]
    folder.mkdir(parents=True)
    if binary:
        cameras = struct.pack("<QiiQQ8d", 1, 7, 4, width, height, *params)
        images = struct.pack("<Q", len(frames))
        for n, name, pose in zip(frames, names, numbers, strict=True):
            images += struct.pack("<i7di", n + 1, *pose, 7) + name.encode() + b"\0"
            images += struct.pack("<Q", len(points) + 1) + struct.pack("<ddq", 1.0, 2.0, -1)
            for p in range(len(points)):
                images += struct.pack("<ddq", 0.0, 0.0, 100 + p if seen[p, n] else -1)
        model = struct.pack("<Q", len(points))
        for p, point in enumerate(points):
            track = [number for n in frames if seen[p, n] for number in (n + 1, p + 1)]
            model += struct.pack("<Qddd3BdQ", 100 + p, *point, 1, 2, 3, 0.5, len(track) // 2)
            model += struct.pack(f"<{len(track)}i", *track)
        for name, data in (("cameras", cameras), ("images", images), ("points3D", model)):
            (folder / f"{name}.bin").write_bytes(data)
        return
    words = " ".join(map(repr, map(float, params)))
    (folder / "cameras.txt").write_text(f"# Camera list\n7 OPENCV {width} {height} {words}\n")
    lines = ["# Image list"]
    for n, name, pose in zip(frames, names, numbers, strict=True):
        lines.append(f"{n + 1} {' '.join(map(repr, map(float, pose)))} 7 {name}")
        ids = [100 + p if seen[p, n] else -1 for p in range(len(points))]
        lines.append(" ".join(f"0.0 0.0 {each}" for each in ids))
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    rows = []
    for p, point in enumerate(points):
        track = " ".join(f"{n + 1} {p}" for n in frames if seen[p, n])
        rows.append(f"{100 + p} {' '.join(map(repr, map(float, point)))} 1 2 3 0.5 {track}")
    (folder / "points3D.txt").write_text("# Points\n" + "\n".join(rows) + "\n")


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "text"])
def test_dl3dvs_points_are_where_the_renderers_are(binary: bool, tmp_path: Path) -> None:
    truth = samples.write_dl3dv(tmp_path)
    write_model(tmp_path / ("1K/" + "ab" * 32) / "colmap/sparse/0", truth, binary=binary, skip=3)
    scene = open_dataset(None, tmp_path).scene()
    assert len(scene) == FRAMES - 1  # the one that COLMAP did not register is left out
    clip = scene.clip(count=None, size=None)
    np.testing.assert_array_equal(clip.frames, truth.rgb[[0, 1, 2, 4]])
    found = scene.reconstruction(clip)
    assert found.sparse
    points, seen = observed_points(truth)
    unit = found.provenance["unit"]
    first = truth.cameras.cam_from_world[0]
    for slot, frame in enumerate([0, 1, 2, 4]):
        known = found.valid[slot]
        assert 5 < known.sum() <= seen[:, frame].sum()
        expected = points[seen[:, frame]] @ first[:, :3].T + first[:, 3]
        apart = np.linalg.norm(found.points[slot][known][:, None] * unit - expected, axis=-1)
        assert apart.min(axis=1).max() < 1e-5
        off = np.abs(found.depth[slot] * unit / truth.depth[frame] - 1)[known]
        assert off.max() < 0.03  # a point lies somewhere in its pixel
    expected_cameras = truth.cameras.select([0, 1, 2, 4]).relative_to_first()
    np.testing.assert_allclose(
        found.cameras.scaled(unit).cam_from_world, expected_cameras.cam_from_world, atol=1e-6
    )
    np.testing.assert_allclose(found.cameras.intrinsics, expected_cameras.intrinsics, atol=1e-6)


def test_a_model_without_pictures_or_points_says_so(tmp_path: Path) -> None:
    truth = samples.write_dl3dv(tmp_path)
    folder = tmp_path / ("1K/" + "ab" * 32)
    write_model(folder / "sparse/0", truth, binary=False)
    (folder / "sparse/0/points3D.txt").write_text("# none\n")
    scene = open_dataset(None, folder).scene()
    with pytest.raises(NoReconstruction, match="no depth in the first frame"):
        scene.reconstruction(scene.clip(count=2))
    for path in (folder / "images_4").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="has none of the pictures"):
        open_dataset(None, folder).scene()


def test_what_pycolmap_writes_is_read_as_pycolmap_reads_it(tmp_path: Path) -> None:
    import pycolmap

    write_model(tmp_path / "text", samples.film(), binary=False)
    theirs = pycolmap.Reconstruction(str(tmp_path / "text"))
    for kind, write in (("bin", theirs.write_binary), ("txt", theirs.write_text)):
        (tmp_path / kind).mkdir()
        write(str(tmp_path / kind))
        ours = read_model(tmp_path / kind)
        assert {image.name for image in theirs.images.values()} == set(ours.images)
        assert len(ours.points) == theirs.num_points3D()
        for image in theirs.images.values():
            mine = ours.images[image.name]
            matrix = image.cam_from_world().matrix()
            np.testing.assert_allclose(mine.cam_from_world, matrix, atol=1e-12)
            expected = {
                tuple(np.round(theirs.points3D[point.point3D_id].xyz, 9))
                for point in image.points2D
                if point.has_point3D()
            }
            assert {tuple(np.round(xyz, 9)) for xyz in ours.points[mine.points]} == expected
            assert len(expected) > 5
            camera = theirs.cameras[image.camera_id]
            read = ours.cameras[mine.camera]
            assert (read.model, read.size) == ("OPENCV", (camera.height, camera.width))
            np.testing.assert_allclose(read.params, camera.params)


def test_a_cut_off_model_is_damaged_wherever_it_ends(tmp_path: Path) -> None:
    truth = samples.film()
    write_model(tmp_path / "model", truth, binary=True)
    for name in ("cameras", "images", "points3D"):
        path = tmp_path / "model" / f"{name}.bin"
        data = path.read_bytes()
        for length in (0, 5, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:length])
            with pytest.raises(DatasetError, match="cut off or damaged"):
                read_model(tmp_path / "model")
        path.write_bytes(data)
    read_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("model", "params", "focal", "distortion"),
    [
        ("SIMPLE_PINHOLE", (9.0, 3.0, 2.0), (9.0, 9.0), (0, 0, 0, 0, 0)),
        ("PINHOLE", (9.0, 8.0, 3.0, 2.0), (9.0, 8.0), (0, 0, 0, 0, 0)),
        ("SIMPLE_RADIAL", (9.0, 3.0, 2.0, 0.1), (9.0, 9.0), (0.1, 0, 0, 0, 0)),
        ("RADIAL", (9.0, 3.0, 2.0, 0.1, 0.2), (9.0, 9.0), (0.1, 0.2, 0, 0, 0)),
        ("OPENCV", (9.0, 8.0, 3.0, 2.0, 0.1, 0.2, 0.3, 0.4), (9.0, 8.0), (0.1, 0.2, 0.3, 0.4, 0)),
    ],
)
def test_parameters_of_each_model(
    model: str, params: tuple[float, ...], focal: tuple, distortion: tuple
) -> None:
    matrix, found = ModelCamera(model, (4, 6), params).pinhole()
    assert (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]) == (*focal, 3.0, 2.0)
    assert found == distortion


def test_a_fisheye_asks_to_be_undistorted() -> None:
    with pytest.raises(DatasetError, match="OPENCV_FISHEYE is not supported"):
        ModelCamera("OPENCV_FISHEYE", (4, 6), (1.0,) * 8).pinhole()
