"""Broken downloads: each gives a typed error that names the file, whatever the reader."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import dataset_samples as samples
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_readers import written

from explorer.data.dataset import open_dataset
from explorer.errors import ClipError, DatasetError, EmergeError, NoReconstruction

PICTURES = {
    "7scenes": "chess/seq-01/frame-000001.color.png",
    "scannet": "scene0001_00/color/10.png",
    "tum": "recording/rgb/1000.053000.png",
    "co3d": "apple/1_2_3/images/frame000002.png",
    "transforms": "images/frame_00002.png",
}
DEPTHS = {
    "7scenes": "chess/seq-01/frame-000001.depth.png",
    "scannet": "scene0001_00/depth/10.png",
    "tum": "recording/depth/1000.065000.png",
    "co3d": "apple/1_2_3/depths/frame000002.png.geometric.png",
    "transforms": "depth/frame_00002.png",
}


def everything(name: str, root: Path) -> None:
    """Open, decode and reconstruct; a damaged dataset stops at one of these."""
    scene = open_dataset(name, root).scene()
    scene.reconstruction(scene.clip(count=3, size=(24, 32)))


def cut(path: Path, share: float = 0.5) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("name", PICTURES)
def test_a_truncated_picture_names_the_frame(name: str, tmp_path: Path) -> None:
    written(name, tmp_path)
    cut(tmp_path / PICTURES[name])
    with pytest.raises(ClipError, match="frame 1 of .* is cut off"):
        everything(name, tmp_path)


@pytest.mark.parametrize("name", DEPTHS)
def test_a_truncated_depth_map_names_the_file(name: str, tmp_path: Path) -> None:
    written(name, tmp_path)
    cut(tmp_path / DEPTHS[name])
    with pytest.raises(DatasetError, match=f"{Path(DEPTHS[name]).name} is damaged .*cut off"):
        everything(name, tmp_path)


@pytest.mark.parametrize("files", [PICTURES, DEPTHS], ids=["pictures", "depths"])
@pytest.mark.parametrize("name", PICTURES)
def test_a_missing_file_is_named(name: str, files: dict[str, str], tmp_path: Path) -> None:
    scene, _ = written(name, tmp_path)
    (tmp_path / files[name]).unlink()
    with pytest.raises(DatasetError, match=f"{Path(files[name]).name}.* is missing"):
        scene.reconstruction(scene.clip(count=3, size=(24, 32)))


@pytest.mark.parametrize("name", DEPTHS)
def test_a_depth_map_of_eight_bits_is_no_depth_map(name: str, tmp_path: Path) -> None:
    written(name, tmp_path)
    samples.write_png(tmp_path / DEPTHS[name], np.zeros((48, 64), np.uint8))
    with pytest.raises(DatasetError, match="is no depth map: expected one channel of 16 bits"):
        everything(name, tmp_path)


@pytest.mark.parametrize("name", ["co3d", "tum"])
def test_a_depth_map_of_another_size_than_its_camera_is_refused(name: str, tmp_path: Path) -> None:
    written(name, tmp_path)
    samples.write_png(tmp_path / DEPTHS[name], np.ones((20, 30), np.uint16))
    with pytest.raises(DatasetError, match=r"has shape \(20, 30\)"):
        everything(name, tmp_path)


@pytest.mark.parametrize("name", DEPTHS)
def test_zero_depth_everywhere_is_no_reconstruction(name: str, tmp_path: Path) -> None:
    written(name, tmp_path)
    for path in (tmp_path / DEPTHS[name]).parent.iterdir():
        if "depth" in str(path.relative_to(tmp_path)):
            size = (112, 84) if name == "co3d" else (48, 64)
            samples.write_png(path, np.zeros(size, np.uint16))
    with pytest.raises(NoReconstruction, match="no depth in the first frame"):
        everything(name, tmp_path)


def with_json(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def nan_pose(name: str, root: Path) -> None:
    """Make one pose of a dataset NaN."""
    if name == "7scenes":
        path = root / "chess/seq-01/frame-000001.pose.txt"
        samples.write_text(path, np.full((4, 4), np.nan))
    elif name == "tum":
        path = root / "recording/groundtruth.txt"
        lines = path.read_text().splitlines()
        lines[5] = " ".join([lines[5].split()[0], *["nan"] * 7])
        path.write_text("\n".join(lines))
    elif name == "co3d":
        path = root / "apple/frame_annotations.jgz"
        frames = json.loads(gzip.decompress(path.read_bytes()))
        frames[1]["viewpoint"]["R"][0][0] = float("nan")
        path.write_bytes(gzip.compress(json.dumps(frames).encode()))
    elif name == "transforms":
        with_json(
            root / "transforms.json",
            lambda content: content["frames"][3].update(transform_matrix=[[float("nan")] * 4] * 4),
        )
    elif name == "npz":
        arrays = dict(np.load(root / "clip.npz"))
        arrays["cam2world"][1] = np.nan
        np.savez(root / "clip.npz", **arrays)
    else:
        path = root / "1K/abc/gt.sft"
        tensors = load_file(path)
        tensors["extrinsic"][1] = np.nan
        save_file(tensors, path)


@pytest.mark.parametrize("name", ["7scenes", "tum", "co3d", "transforms", "npz", "vidfm3d"])
def test_a_pose_of_nan_is_named(name: str, tmp_path: Path) -> None:
    written(name, tmp_path)
    nan_pose(name, tmp_path)
    with pytest.raises(DatasetError, match="NaN"):
        everything(name, tmp_path / "clip.npz" if name == "npz" else tmp_path)


def test_a_pose_that_stretches_space_is_refused(tmp_path: Path) -> None:
    written("7scenes", tmp_path)
    samples.write_text(tmp_path / "chess/seq-01/frame-000001.pose.txt", np.diag([2.0, 2, 2, 1]))
    with pytest.raises(DatasetError, match="is no rigid motion"):
        everything("7scenes", tmp_path)


def test_a_pose_file_with_words_in_it_is_refused(tmp_path: Path) -> None:
    written("7scenes", tmp_path)
    (tmp_path / "chess/seq-01/frame-000001.pose.txt").write_text("<html>not found</html>")
    with pytest.raises(DatasetError, match="frame-000001.pose.txt holds no matrix"):
        everything("7scenes", tmp_path)


def test_tums_times_that_do_not_meet_are_said(tmp_path: Path) -> None:
    written("tum", tmp_path)
    path = tmp_path / "recording/depth.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(f"9{line}" for line in lines[1:])]))
    with pytest.raises(DatasetError, match=r"not synchronised.*rgb 1000\.02 to 1000\.15, depth 91"):
        everything("tum", tmp_path)


def test_a_tum_recording_of_an_unknown_camera_asks_for_its_calibration(tmp_path: Path) -> None:
    written("tum", tmp_path)
    (tmp_path / "recording/calibration.json").unlink()
    with pytest.raises(DatasetError, match="which camera took it"):
        everything("tum", tmp_path)
    (tmp_path / "recording/calibration.json").write_text('{"color": {"fx": 500}}')
    with pytest.raises(DatasetError, match="is no calibration"):
        everything("tum", tmp_path)


def test_scannets_cameras_must_share_a_frame(tmp_path: Path) -> None:
    written("scannet", tmp_path)
    moved = np.eye(4)
    moved[0, 3] = 0.05
    samples.write_text(tmp_path / "scene0001_00/intrinsic/extrinsic_depth.txt", moved)
    with pytest.raises(DatasetError, match="extrinsic_depth.txt is not the identity"):
        everything("scannet", tmp_path)


@pytest.mark.parametrize("camera", ["color", "depth"])
def test_scannets_intrinsics_must_be_of_pictures_of_that_size(camera: str, tmp_path: Path) -> None:
    """As where the exporter has made the pictures smaller."""
    written("scannet", tmp_path)
    path = next(tmp_path.rglob(f"intrinsic_{camera}.txt"))
    rows = [[float(each) * 2 for each in row.split()] for row in path.read_text().splitlines()]
    path.write_text("\n".join(" ".join(map(str, row)) for row in rows))
    with pytest.raises(DatasetError, match=f"intrinsic_{camera}.txt of .* scale it"):
        everything("scannet", tmp_path)


@pytest.mark.parametrize("ending", ["frame", "sequence"])
def test_cut_off_annotations_of_co3d_are_named(ending: str, tmp_path: Path) -> None:
    written("co3d", tmp_path)
    cut(tmp_path / f"apple/{ending}_annotations.jgz")
    with pytest.raises(DatasetError, match=f"{ending}_annotations.jgz is cut off"):
        everything("co3d", tmp_path)


def test_annotations_of_another_kind_are_refused(tmp_path: Path) -> None:
    written("co3d", tmp_path)
    path = tmp_path / "apple/frame_annotations.jgz"
    path.write_bytes(gzip.compress(json.dumps([{"sequence_name": "1_2_3"}]).encode()))
    with pytest.raises(DatasetError, match="not those of CO3Dv2"):
        everything("co3d", tmp_path)
    path.write_bytes(gzip.compress(b'{"a": 1}'))
    with pytest.raises(DatasetError, match="not a list"):
        everything("co3d", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(frames="none"), 'no list "frames"'),
        (lambda content: content.update(frames=[]), "lists no frames"),
        (lambda content: content["frames"][0].pop("transform_matrix"), "damaged or incomplete"),
        (lambda content: content.update(camera_model="OPENCV_FISHEYE"), "OPENCV_FISHEYE: only"),
        (lambda content: content.update(k4=0.1), "k4, which is not supported"),
        (lambda content: [content.pop("fl_x"), content.pop("fl_y")], "neither fl_x nor"),
    ],
)
def test_a_transforms_json_that_cannot_be_used_says_why(
    change: Callable[[dict], None], message: str, tmp_path: Path
) -> None:
    written("transforms", tmp_path)
    with_json(tmp_path / "transforms.json", change)
    with pytest.raises(DatasetError, match=message):
        everything("transforms", tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rgb", lambda a: a[..., :2], "rgb in .* expected shape"),
        ("rgb", lambda a: a.astype(np.uint16), "must be uint8"),
        ("depth_mm", lambda a: a[:, 1:], "depth_mm in .* expected shape"),
        ("K", lambda a: a[:2], "K in .* expected shape"),
        ("cam2world", lambda a: a[:3], "cam2world in .* expected shape"),
        ("frame", lambda a: a.astype(np.float64), "frame in .* float64"),
    ],
)
def test_an_array_of_another_shape_or_kind_is_named(
    name: str, change: Callable[[np.ndarray], np.ndarray], message: str, tmp_path: Path
) -> None:
    written("npz", tmp_path)
    path = tmp_path / "clip.npz"
    arrays = dict(np.load(path))
    arrays[name] = change(arrays[name])
    np.savez(path, **arrays)
    with pytest.raises(DatasetError, match=message):
        everything("npz", path)


@pytest.mark.parametrize("share", [0.3, 0.99])
@pytest.mark.parametrize(("name", "file"), [("npz", "clip.npz"), ("vidfm3d", "1K/abc/gt.sft")])
def test_a_cut_off_file_of_arrays_says_so(
    name: str, file: str, share: float, tmp_path: Path
) -> None:
    written(name, tmp_path)
    cut(tmp_path / file, share)
    with pytest.raises(EmergeError, match="cut off or damaged"):
        everything(name, tmp_path / file)


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    samples.write_npz(tmp_path / "clip.npz")
    arrays = dict(np.load(tmp_path / "clip.npz"))
    np.savez(tmp_path / "clip.npz", **{**arrays, "place": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(DatasetError, match="cannot be read"):
        everything("npz", tmp_path / "clip.npz")


def test_a_processed_clip_of_another_shape_is_refused(tmp_path: Path) -> None:
    written("vidfm3d", tmp_path)
    path = tmp_path / "1K/abc/gt.sft"
    tensors = load_file(path)
    save_file({**tensors, "depthmaps": tensors["depthmaps"][:, :-1].copy()}, path)
    with pytest.raises(DatasetError, match=r"depthmaps in .* has shape .* expected"):
        everything("vidfm3d", path)
