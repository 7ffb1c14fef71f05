"""What a path on the command line names."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "data"))
import dataset_samples as samples

from explorer.assets import assets_root
from explorer.errors import ClipError, DatasetError
from explorer.source import open_source, open_sources


def test_a_video_stays_a_video(make_video) -> None:
    source = open_source(make_video())
    assert source.scene is None
    assert source.info().frames == 24
    assert source.clip(count=2, size=(24, 32)).scene is None


def test_a_scene_is_named_after_its_folder(tmp_path: Path) -> None:
    samples.write_sevenscenes(tmp_path, sequences=("seq-01", "seq-02"))
    source = open_source(f"{tmp_path}::chess/seq-02")
    assert source.scene is not None
    assert source.scene.name == "chess/seq-02"
    assert source.info().frames == samples.FRAMES
    clip = source.clip(count=2, size=(24, 32))
    assert clip.scene is source.scene
    assert clip.name == "7scenes::chess/seq-02"
    with pytest.raises(DatasetError, match="say which.*chess/seq-01, chess/seq-02"):
        open_source(tmp_path)
    with pytest.raises(DatasetError, match="has no scene 'x'"):
        open_source(f"{tmp_path}::x")
    with pytest.raises(DatasetError, match="none of the known datasets"):
        open_source(f"{tmp_path / 'chess' / 'TestSplit.txt'}::x")


def test_a_dataset_of_one_scene_needs_no_name(tmp_path: Path) -> None:
    samples.write_npz(tmp_path / "a.npz")
    for path in (tmp_path / "a.npz", f"{tmp_path / 'a.npz'}::a"):
        source = open_source(path)
        assert source.scene is not None
        assert source.scene.dataset == "npz"


def test_a_folder_of_pictures_stays_a_clip_whatever_lies_below_it(tmp_path: Path) -> None:
    samples.write_transforms(tmp_path / "below")
    samples.write_png(tmp_path / "0.png", np.zeros((8, 8, 3), np.uint8))
    assert open_source(tmp_path).scene is None
    assert open_source(tmp_path / "below").scene is not None
    assert open_source(tmp_path / "below/images").scene is None


def test_pictures_beside_their_cameras_are_a_scene(tmp_path: Path) -> None:
    samples.write_sevenscenes(tmp_path)
    assert open_source(tmp_path / "chess/seq-01").scene is not None


def test_another_npz_lists_what_would_be_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", a=np.zeros(3))
    with pytest.raises(DatasetError, match="npz: FILE.npz with rgb"):
        open_source(tmp_path / "b.npz")


def test_a_shipped_clip_is_found_by_its_name() -> None:
    expected = assets_root() / "clips" / "room-orbit-01.mp4"
    assert open_source("room-orbit-01").path == expected
    assert open_source("room-orbit-01.mp4").path == expected
    with pytest.raises(ClipError, match="no-such-clip does not exist"):
        open_source("no-such-clip").info()
    assert open_source("elsewhere/room-orbit-01").path == Path("elsewhere/room-orbit-01")


def test_a_whole_dataset_is_each_of_its_scenes_or_those_on_a_side(tmp_path: Path) -> None:
    samples.write_sevenscenes(tmp_path, sequences=("seq-01", "seq-02"))
    names = [f"{tmp_path}::chess/seq-01", f"{tmp_path}::chess/seq-02"]
    every = open_sources(tmp_path)
    assert [each.name for each in every] == names
    assert [each.open().scene.name for each in every] == ["chess/seq-01", "chess/seq-02"]
    assert open_source(names[1]).scene.name == "chess/seq-02"
    assert [each.name for each in open_sources(tmp_path, clips=1)] == names[:1]
    assert [each.name for each in open_sources(tmp_path, side="test")] == names[1:]
    with pytest.raises(DatasetError, match="sides: test, train"):
        open_sources(tmp_path, side="val")


def test_a_scene_or_a_video_is_one_source_and_has_no_sides(tmp_path: Path) -> None:
    samples.write_npz(tmp_path / "a.npz")
    (npz,) = open_sources(tmp_path / "a.npz")
    assert npz.open().scene is not None
    for path in (f"{tmp_path / 'a.npz'}::a", "room-orbit-01"):
        (only,) = open_sources(path)
        assert only.name == path
        with pytest.raises(DatasetError, match="only a whole dataset"):
            open_sources(path, side="test")
    (missing,) = open_sources("missing.mp4")
    with pytest.raises(ClipError, match="does not exist"):
        missing.open().info()
