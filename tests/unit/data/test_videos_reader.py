from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from explorer.clip import load_clip
from explorer.data.dataset import open_dataset
from explorer.errors import ClipError, NoReconstruction

MakeVideo = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, make_video: MakeVideo) -> Path:
    root = tmp_path / "videos"
    (root / "more").mkdir(parents=True)
    path = make_video("tiny.mp4", count=10)
    for name in ("a10.mp4", "a2.MP4", "more/b.mov"):
        shutil.copy(path, root / name)
    (root / "notes.txt").touch()
    return root


def test_every_video_is_a_scene_in_natural_order(folder: Path) -> None:
    dataset = open_dataset(None, folder)
    assert dataset.card.id == "videos"
    assert dataset.names == ("a2", "a10", "more/b")
    assert {entry.place for entry in dataset.entries} == set(dataset.names)


def test_a_clip_of_it_is_that_of_the_file(folder: Path) -> None:
    scene = open_dataset("videos", folder).scene("more/b")
    assert len(scene) == scene.info().frames == 10
    clip = scene.clip(start=1, stride=2, count=4, size=(48, 64))
    same = load_clip(folder / "more/b.mov", start=1, stride=2, count=4, size=(48, 64))
    assert clip.content_hash == same.content_hash
    assert (clip.frames == same.frames).all()
    assert clip.scene is None
    with pytest.raises(ClipError, match="too few for 40 frames"):
        scene.clip(count=40)


def test_nothing_is_known_about_its_geometry(folder: Path) -> None:
    scene = open_dataset("videos", folder).scene("a2")
    assert scene.geometry is None
    with pytest.raises(NoReconstruction, match="nothing is known"):
        scene.view(0)
    with pytest.raises(NoReconstruction):
        scene.reconstruction(scene.clip(count=2, size=(8, 8)))


def test_folders_of_other_things_are_not_taken_for_videos(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "v.mp4").touch()
    from explorer.data.readers.videos import Videos

    assert not Videos.finds(tmp_path)
    assert not Videos.finds(tmp_path / "x.npz")
