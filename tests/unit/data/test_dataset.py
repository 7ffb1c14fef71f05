"""Finding, naming and hashing what datasets hold, apart from any layout."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import dataset_samples as samples
import numpy as np
import pytest

from explorer.clip import load_clip
from explorer.data import dataset as datasets
from explorer.data.dataset import cards, open_dataset
from explorer.errors import ClipError, DatasetError

KNOWN = {"7scenes", "co3d", "dl3dv", "npz", "scannet", "transforms", "tum", "vidfm3d"}


def test_every_reader_is_registered_with_a_complete_card() -> None:
    found = {card.id: card for card in cards()}
    assert KNOWN <= set(found)
    for card in (found[name] for name in KNOWN):
        assert all(vars(card).values()), card.id
        assert card.homepage.startswith(("http://", "https://"))


def test_readers_are_known_without_torch() -> None:
    code = (
        "import sys, explorer.data.dataset as d; d.cards(); "
        "sys.exit(int('torch' in sys.modules or 'cv2' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_no_dataset_lists_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as found:
        open_dataset(None, tmp_path)
    for name in KNOWN:
        assert f"{name}: " in str(found.value)
    with pytest.raises(DatasetError, match="does not look like tum. Looked for: .*groundtruth.txt"):
        open_dataset("tum", tmp_path)
    with pytest.raises(DatasetError, match="there is no dataset 'kitti'; there are: .*7scenes"):
        open_dataset("kitti", tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        open_dataset(None, tmp_path / "gone")


def test_several_scenes_have_to_be_chosen_from(tmp_path: Path) -> None:
    samples.write_sevenscenes(tmp_path, sequences=tuple(f"seq-{n:02d}" for n in range(1, 15)))
    dataset = open_dataset(None, tmp_path)
    assert len(dataset) == 14
    with pytest.raises(DatasetError, match="14 scenes.*::NAME: chess/seq-01, .*, and 2 more"):
        dataset.scene()
    with pytest.raises(DatasetError, match="has no scene 'chess/seq-99'; there are: chess/seq-01"):
        dataset.scene("chess/seq-99")
    assert dataset.scene("chess/seq-14").name == "chess/seq-14"


def test_listing_scenes_reads_no_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples.write_sevenscenes(tmp_path, sequences=("seq-01", "seq-02"))
    read = Path.read_bytes

    def texts_only(path: Path) -> bytes:
        assert path.suffix == ".txt"
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", texts_only)
    assert open_dataset(None, tmp_path).names == ("chess/seq-01", "chess/seq-02")


def test_a_scenes_clip_is_what_load_clip_makes_of_the_same_pictures(tmp_path: Path) -> None:
    samples.write_transforms(tmp_path)
    scene = open_dataset(None, tmp_path).scene()
    window = {"start": 1, "stride": 2, "count": 2, "size": (20, 30)}
    ours, theirs = scene.clip(**window), load_clip(tmp_path / "images", **window)
    np.testing.assert_array_equal(ours.frames, theirs.frames)
    np.testing.assert_array_equal(ours.timestamps, theirs.timestamps)
    np.testing.assert_array_equal(ours.source_frames, theirs.source_frames)
    assert (ours.crop, ours.source_size) == (theirs.crop, theirs.source_size)
    info = scene.info()
    assert (info.frames, info.size, info.fps) == (samples.FRAMES, (48, 64), 30.0)


def test_a_clips_hash_is_of_pictures_and_sampling_and_not_of_the_path(tmp_path: Path) -> None:
    samples.write_transforms(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")

    def clip(folder: str, **window: object):
        return open_dataset(None, tmp_path / folder).scene().clip(count=2, size=(20, 30), **window)

    first = clip("one")
    assert clip("two").content_hash == first.content_hash
    assert clip("one", start=1).content_hash != first.content_hash
    assert clip("one", stride=2).content_hash != first.content_hash
    picture = tmp_path / "two/images/frame_00001.png"
    samples.write_png(picture, np.zeros((48, 64, 3), np.uint8))
    assert clip("two").content_hash != first.content_hash


def test_a_window_that_does_not_fit_says_which_would(tmp_path: Path) -> None:
    samples.write_transforms(tmp_path)
    scene = open_dataset(None, tmp_path).scene()
    with pytest.raises(ClipError, match="has 5 frames, too few for 6 frames"):
        scene.clip(count=6)
    with pytest.raises(ClipError, match="stride is 0"):
        scene.clip(stride=0)


def test_of_several_readers_that_fit_the_more_particular_one_opens(tmp_path: Path) -> None:
    samples.write_tum(tmp_path)
    (tmp_path / "recording" / "transforms.json").write_text("{}")
    assert open_dataset(None, tmp_path).card.id == "tum"
    assert open_dataset("transforms", tmp_path).card.id == "transforms"


def test_a_reader_of_ones_own_is_opened_like_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards()
    monkeypatch.setattr(datasets, "_readers", dict(datasets._readers))

    class Mine(datasets.Dataset):
        @classmethod
        def finds(cls, root: Path) -> bool:
            return (root / "mine.txt").is_file()

        def listing(self):
            return (datasets.SceneEntry("only", "here"),)

        def open(self, entry):
            raise DatasetError("not today")

    card = datasets.DatasetCard("mine", "Mine", "own", "https://example.org", "mine.txt", "none")
    datasets.register(card)(Mine)
    (tmp_path / "mine.txt").touch()
    assert open_dataset(None, tmp_path).names == ("only",)
