"""Each reader on its dataset's layout: pictures, points and cameras are what the renderer knows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import dataset_samples as samples
import numpy as np
import pytest
from dataset_samples import Truth

from explorer.clip import Clip
from explorer.data.dataset import Scene, SceneEntry, open_dataset
from explorer.data.prepared.sides import split_scene
from explorer.errors import DatasetError, NoReconstruction
from explorer.reconstruction import Reconstruction

# dataset -> how to write it, and how well its depth is known: relative error of a point in the
# median and in 19 of 20 pixels, and the share of pixels that are known. Of registered depth, edges
# are up to a pixel off, and what the depth camera could not see is missing.
WRITERS: dict[str, tuple[Callable[[Path], Truth], float, float, float]] = {
    "7scenes": (samples.write_sevenscenes, 3e-4, 0.03, 0.78),
    "scannet": (samples.write_scannet, 3e-4, 0.03, 0.98),
    "tum": (samples.write_tum, 1e-4, 0.02, 0.98),
    "co3d": (samples.write_co3d, 3e-4, 5e-4, 0.88),
    "transforms": (samples.write_transforms, 1e-4, 3e-4, 1.0),
    "npz": (lambda folder: samples.write_npz(folder / "clip.npz"), 1e-4, 3e-4, 1.0),
    "vidfm3d": (
        lambda folder: samples.write_sft(folder / "1K" / "abc" / "gt.sft"),
        1e-6,
        1e-6,
        1.0,
    ),
}


def written(name: str, folder: Path) -> tuple[Scene, Truth]:
    truth = WRITERS[name][0](folder)
    root = folder / "clip.npz" if name == "npz" else folder
    dataset = open_dataset(None, root)
    assert dataset.card.id == name
    return dataset.scene(), truth


def of_pictures(name: str, truth: Truth) -> Truth:
    """The part of a dataset's pictures that the reader shows: CO3D's is 16:9 around the principal
    point (39, 56), with half a pixel for a border: 77 columns, and 43 rows of the 112."""
    if name != "co3d":
        return truth
    assert tuple(truth.cameras.intrinsics[0, :2, 2]) == (39.0, 56.0)
    return truth.cropped(34, 0, 43, 77)


def errors(found: Reconstruction, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """(relative errors of known points, known)."""
    unit = found.provenance["unit"]
    off = np.linalg.norm(found.points * unit - truth.points(), axis=-1)
    distance = np.linalg.norm(truth.points(), axis=-1)
    return (off / distance)[found.valid], found.valid


@pytest.mark.parametrize("name", WRITERS)
def test_pictures_points_and_cameras_are_the_renderers(name: str, tmp_path: Path) -> None:
    scene, truth = written(name, tmp_path)
    shown = of_pictures(name, truth)
    clip = scene.clip(count=None, size=None)
    assert len(scene) == len(clip) == len(shown.rgb)
    np.testing.assert_array_equal(clip.frames, shown.rgb)
    found = scene.reconstruction(clip)
    _, middle, most, least = WRITERS[name]
    off, known = errors(found, shown)
    assert np.median(off) < middle
    assert np.quantile(off, 0.95) < most
    if name not in ("7scenes", "scannet", "tum"):  # the others' maps are the camera's own
        assert off.max() < 2 * most
    assert known.mean() >= least
    unit = found.provenance["unit"]
    expected = shown.cameras.relative_to_first()
    np.testing.assert_allclose(found.cameras.intrinsics, shown.cameras.intrinsics, atol=1e-5)
    moved = found.cameras.scaled(unit).cam_from_world
    np.testing.assert_allclose(moved, expected.cam_from_world, atol=2e-6)
    if name == "7scenes":
        assert found.depth.max() * unit < 10  # 65535 is no depth
    if name == "co3d":
        assert not known[:, :, 70:].any()
        assert not known[:, 50 - 34, 10].any()
    assert found.confidence[~known].max(initial=0) == 0
    assert found.depth[~known].max(initial=0) == 0


@pytest.mark.parametrize("name", WRITERS)
def test_crop_and_resizing_move_the_geometry_with_the_pixels(name: str, tmp_path: Path) -> None:
    """Points of a small clip lie on the surfaces that the full pictures' rays meet there."""
    scene, truth = written(name, tmp_path)
    shown = of_pictures(name, truth)
    clip = scene.clip(start=1, stride=2, count=2, size=(20, 50))
    assert clip.source_frames.tolist() == [1, 3]
    found = scene.reconstruction(clip)
    assert found.size == clip.size == (20, 50)
    picked = shown.cameras.select([1, 3])
    expected = shown.points()[[1, 3]] @ picked_rotation(shown).T + picked_shift(shown)
    unit = found.provenance["unit"]
    for slot in range(2):
        points = found.points[slot][found.valid[slot]] * unit
        pose = picked.relative_to_first().cam_from_world[slot]
        in_camera = points @ pose[:, :3].T + pose[:, 3]
        pixels = in_camera[:, :2] / in_camera[:, 2:] * np.diag(picked.intrinsics[slot])[:2]
        pixels += picked.intrinsics[slot, :2, 2]
        top, left, height, width = clip.crop
        right = 70 if name == "co3d" else left + width  # beyond is masked
        assert pixels.min(axis=0) == pytest.approx([left, top], abs=4 * width / 50)
        assert pixels.max(axis=0) == pytest.approx([right, top + height], abs=4 * width / 50)
        column, row = np.floor(pixels).astype(int).T
        near = np.linalg.norm(points - expected[slot, row, column], axis=-1)
        assert np.median(near / in_camera[:, 2]) < 0.02
        assert (near / in_camera[:, 2] < 0.06).mean() > 0.85


def picked_rotation(truth: Truth) -> np.ndarray:
    """Of the frame that the small clip starts with, seen from the first frame."""
    return truth.cameras.relative_to_first().cam_from_world[1, :, :3]


def picked_shift(truth: Truth) -> np.ndarray:
    return truth.cameras.relative_to_first().cam_from_world[1, :, 3]


@pytest.mark.parametrize(
    ("name", "scene_name", "place", "split", "unit"),
    [
        ("7scenes", "chess/seq-01", "chess", "train", "m"),
        ("scannet", "scene0001_00", "scene0001", None, "m"),
        ("tum", "recording", "recording", None, "m"),
        ("co3d", "apple/1_2_3", "apple/1_2_3", "val", None),
        ("transforms", "*", "*", None, "m"),
        ("npz", "clip", "clip", None, "m"),
        ("vidfm3d", "1K/abc", "dl3dv::abc", None, None),
    ],
)
def test_names_places_splits_and_units(
    name: str, scene_name: str, place: str, split: str | None, unit: str | None, tmp_path: Path
) -> None:
    scene, _ = written(name, tmp_path)
    own = tmp_path.name
    assert (scene.name, scene.place) == (scene_name.replace("*", own), place.replace("*", own))
    assert (scene.split, scene.unit) == (split, unit)
    assert scene.geometry is not None


def test_a_room_keeps_its_name_and_place_from_whichever_folder_it_is_opened(tmp_path: Path) -> None:
    samples.write_sevenscenes(tmp_path, sequences=("seq-01", "seq-02"))
    for root in (tmp_path, tmp_path / "chess"):
        entries = open_dataset("7scenes", root).entries
        assert [(each.name, each.place, each.split) for each in entries] == [
            ("chess/seq-01", "chess", "train"),
            ("chess/seq-02", "chess", "test"),
        ]
    assert open_dataset(None, tmp_path / "chess" / "seq-02").names == ("chess/seq-02",)


def test_a_processed_clip_is_called_like_its_origin_from_whichever_folder_it_is_opened(
    tmp_path: Path,
) -> None:
    samples.write_sft(tmp_path / "1K/abc/gt.sft")
    samples.write_sft(tmp_path / "apple/1_2_3/gt.sft")
    samples.write_sft(tmp_path / "mine.sft")
    samples.write_sft(tmp_path / "2K/def.sft")
    samples.write_sft(tmp_path / "2K/ghi/first.sft")
    samples.write_sft(tmp_path / "2K/ghi/second.sft")
    (tmp_path / "val.json").write_text('[["1K", "abc"]]')
    entries = {each.name: each for each in open_dataset("vidfm3d", tmp_path).entries}
    assert {name: (each.place, each.split) for name, each in entries.items()} == {
        "1K/abc": ("dl3dv::abc", "val"),
        "apple/1_2_3": ("co3d::apple/1_2_3", None),
        "mine": ("mine", None),
        "2K/def": ("dl3dv::def", None),
        "2K/ghi/first": ("dl3dv::ghi", None),
        "2K/ghi/second": ("dl3dv::ghi", None),
    }
    assert open_dataset("vidfm3d", tmp_path / "2K/ghi").names == ("2K/ghi/first", "2K/ghi/second")
    assert open_dataset("vidfm3d", tmp_path / "2K/def.sft").names == ("2K/def",)
    for part in ("1K", "1K/abc", "1K/abc/gt.sft"):
        assert open_dataset("vidfm3d", tmp_path / part).entries == (entries["1K/abc"],)
    samples.write_dl3dv(tmp_path / "other", "1K/" + "ab" * 32)
    (scene,) = open_dataset("dl3dv", tmp_path / "other").entries
    assert split_scene("dl3dv", scene, identity="").place == f"dl3dv::{'ab' * 32}"
    processed = SceneEntry(f"1K/{'ab' * 32}", f"dl3dv::{'ab' * 32}")
    assert split_scene("vidfm3d", processed, identity="").place == f"dl3dv::{'ab' * 32}"


def test_two_scans_of_a_room_are_of_one_place(tmp_path: Path) -> None:
    for name in ("scene0001_00", "scene0001_01", "scene0002_00"):
        samples.write_scannet(tmp_path, name)
    places = [each.place for each in open_dataset("scannet", tmp_path).entries]
    assert places == ["scene0001", "scene0001", "scene0002"]


def test_co3d_has_its_51_categories_and_the_11_of_the_ablations() -> None:
    from explorer.data.readers.co3d import ABLATION, CATEGORIES

    assert len(set(CATEGORIES)) == len(CATEGORIES) == 51
    assert len(ABLATION) == 11
    assert set(ABLATION) < set(CATEGORIES)


def test_official_categories_can_be_chosen(tmp_path: Path) -> None:
    samples.write_co3d(tmp_path)
    for other in ("banana", "pineapple"):
        shutil.copytree(tmp_path / "apple", tmp_path / other)
    every = ("apple/1_2_3", "banana/1_2_3", "pineapple/1_2_3")
    dataset = open_dataset("co3d", tmp_path)
    with pytest.raises(DatasetError, match="no scene of 'pear'; choose among: official, ablation"):
        dataset.keep(["apple", "pear"])
    assert dataset.names == every
    for wanted, names in {
        "official": every[:2],
        "ablation": every[:1],
        "banana": every[1:2],
    }.items():
        dataset = open_dataset("co3d", tmp_path)
        dataset.keep([wanted])
        assert dataset.names == names
    dataset = open_dataset("co3d", tmp_path)
    dataset.keep(["pineapple", every[0]])
    assert dataset.names == (every[0], every[2])


def test_two_folders_of_one_name_are_not_taken_for_one_scene(tmp_path: Path) -> None:
    samples.write_scannet(tmp_path / "mine", "kitchen")
    samples.write_scannet(tmp_path / "yours", "kitchen")
    with pytest.raises(DatasetError, match=r"mine/kitchen and .*yours/kitchen are both called"):
        assert open_dataset("scannet", tmp_path).entries


def test_scannets_lost_frame_leaves_a_gap_in_time(tmp_path: Path) -> None:
    samples.write_scannet(tmp_path)
    (tmp_path / "scannetv2_val.txt").write_text("scene0001_00\n")
    scene = open_dataset("scannet", tmp_path).scene()
    assert scene.split == "val"
    np.testing.assert_allclose(scene.clip(count=None).timestamps, np.array([0, 10, 30, 40]) / 30)


def test_tums_depth_is_moved_to_the_time_of_the_picture(tmp_path: Path) -> None:
    """As it was stored it is further off."""
    scene, truth = written("tum", tmp_path)
    stored = samples.write_tum(tmp_path / "same", late=0.0)
    np.testing.assert_array_equal(stored.depth, truth.depth)
    moved = scene.view(2).depth
    assert moved is not None
    raw = moved_nothing(scene, 2)
    both = (moved > 0) & (raw > 0)
    near = np.abs(moved - truth.depth[2])[both]
    assert np.median(near) < 0.5 * np.median(np.abs(raw - truth.depth[2])[both])
    np.testing.assert_allclose(scene.seconds([0, 2]), [0, 0.066], atol=1e-9)
    assert scene.fps == pytest.approx(1 / 0.033)


def moved_nothing(scene: Scene, frame: int) -> np.ndarray:
    from explorer.data.readers._common import read_depth

    return read_depth(scene.folder / scene.pairs[frame][3]) / 5000.0  # type: ignore[attr-defined]


def test_co3ds_window_cuts_off_least_of_the_object(tmp_path: Path, monkeypatch) -> None:
    samples.write_co3d(tmp_path, count=13)
    scene = open_dataset("co3d", tmp_path / "apple").scene()
    from explorer.data.readers import _co3d_crop as rule

    with pytest.raises(DatasetError, match="enlarged 12.47 times"):
        scene.official_start(5)
    monkeypatch.setattr(rule, "OUTPUT_WIDTH", 77)
    with pytest.raises(DatasetError, match="28% of the object lies outside"):
        scene.official_start(5)
    masks = sorted((tmp_path / "apple/1_2_3/masks").glob("*.png"))
    for path in masks[7:]:  # whole inside the crop: rows 35 to 77
        inside = np.zeros((112, 84), dtype=np.uint8)
        inside[40:60, 20:50] = 255
        samples.write_png(path, inside)
    assert scene.official_start(5) == 8
    assert scene.official_start(13) == 0
    with pytest.raises(DatasetError, match="13 frames, too few for 81"):
        scene.official_start(81)


def test_co3ds_times_are_the_annotated_ones(tmp_path: Path) -> None:
    samples.write_co3d(tmp_path)
    scene = open_dataset("co3d", tmp_path).scene()
    np.testing.assert_allclose(scene.clip(count=3).timestamps, [0, 0.05, 0.1])
    assert scene.fps == pytest.approx(20)


def test_co3ds_older_intrinsics_are_the_same_camera(tmp_path: Path) -> None:
    import gzip
    import json

    samples.write_co3d(tmp_path)
    before = open_dataset("co3d", tmp_path).scene().view(1)
    path = tmp_path / "apple" / "frame_annotations.jgz"
    frames = json.loads(gzip.decompress(path.read_bytes()))
    for frame in frames:
        view, (height, width) = frame["viewpoint"], frame["image"]["size"]
        for key in ("focal_length", "principal_point"):
            per_axis = min(height, width) / np.array([width, height])
            view[key] = (np.array(view[key]) * per_axis).tolist()
        view["intrinsics_format"] = "ndc_norm_image_bounds"
    frames[3]["viewpoint"]["T"] = [1e17, 0.0, 0.0]  # as a few in the dataset are
    frames[4]["viewpoint"] = None
    path.write_bytes(gzip.compress(json.dumps(frames).encode()))
    scene = open_dataset("co3d", tmp_path).scene()
    assert len(scene) == 3
    np.testing.assert_allclose(scene.view(1).intrinsics, before.intrinsics)


def test_confidence_of_the_processed_clips_is_vggts(tmp_path: Path) -> None:
    scene, _ = written("vidfm3d", tmp_path)
    clip = scene.clip(count=None, size=None)
    confidence = scene.reconstruction(clip).confidence
    np.testing.assert_array_equal(confidence.ravel(), 1 + np.arange(confidence.size))


def test_dl3dv_without_a_colmap_model_has_cameras_only(tmp_path: Path) -> None:
    truth = samples.write_dl3dv(tmp_path)
    dataset = open_dataset(None, tmp_path)
    assert dataset.card.id == "dl3dv"
    scene = dataset.scene()
    assert (scene.name, scene.place) == ("1K/" + "ab" * 32, "ab" * 32)
    clip = scene.clip(count=None, size=(24, 32))
    np.testing.assert_array_equal(scene.clip(count=None, size=None).frames, truth.rgb)
    expected = truth.cameras.resized(24, 32)
    np.testing.assert_allclose(scene.cameras(clip).intrinsics, expected.intrinsics, atol=1e-6)
    np.testing.assert_allclose(
        scene.cameras(clip).cam_from_world, expected.cam_from_world, atol=1e-6
    )
    with pytest.raises(NoReconstruction, match="cameras but no depth"):
        scene.reconstruction(clip)


def test_a_nerfstudio_folder_with_full_pictures_is_not_taken_for_dl3dv(tmp_path: Path) -> None:
    samples.write_transforms(tmp_path / "garden")
    (tmp_path / "garden" / "images_4").mkdir()
    assert open_dataset(None, tmp_path / "garden").card.id == "transforms"


def test_a_clip_of_another_scene_is_refused(tmp_path: Path) -> None:
    samples.write_sevenscenes(tmp_path, sequences=("seq-01", "seq-02"))
    one, two = open_dataset(None, tmp_path).scenes()
    with pytest.raises(DatasetError, match="not of 7scenes::chess/seq-02"):
        two.reconstruction(one.clip(count=2))


def test_a_scene_whose_first_frame_has_no_depth_says_so(tmp_path: Path) -> None:
    samples.write_transforms(tmp_path)
    samples.write_png(tmp_path / "depth/frame_00001.png", np.zeros((48, 64), np.uint16))
    scene = open_dataset(None, tmp_path).scene()
    clip: Clip = scene.clip(count=2)
    with pytest.raises(NoReconstruction, match="no depth in the first frame"):
        scene.reconstruction(clip)
    assert scene.reconstruction(scene.clip(start=1, count=2)).valid.all()
