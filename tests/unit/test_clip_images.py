from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clip_samples import numbers, pattern, write_images

from explorer.clip import inspect_video, load_clip
from explorer.errors import ClipError


def test_images_are_sorted_by_the_numbers_in_their_names(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", [f"img{number}.png" for number in range(12)])
    (folder / "notes.txt").write_text("not an image")
    (folder / "._img0.png").write_text("left by another system")
    clip = load_clip(folder, count=None, size=None)
    assert numbers(clip) == list(range(12))
    assert numbers(load_clip(folder, start=1, stride=5, count=3, size=None)) == [1, 6, 11]
    assert clip.name == "images"
    info = inspect_video(folder)
    assert (info.frames, info.size) == (12, (96, 128))


def test_a_photo_is_turned_after_its_exif_orientation(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to show
    image = pattern(1)[0]
    Image.fromarray(image).save(folder / "a.jpg", exif=exif, quality=100, subsampling=0)
    clip = load_clip(folder, count=1, size=None)
    assert clip.size == (128, 96)
    expected = np.rot90(image, 3).astype(int)
    assert np.median(np.abs(clip.frames[0].astype(int) - expected)) <= 2


def test_images_of_several_sizes_are_refused(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", ["0.png", "1.png"])
    write_images(folder, ["2.jpg"], size=(64, 64))
    with pytest.raises(ClipError, match=r"mixes image sizes: 2\.jpg is 64x64, 0\.png is 128x96"):
        load_clip(folder, count=2)


@pytest.mark.parametrize("name", ["1.png", "1.jpg"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: data[: len(data) * 2 // 3], "is cut off"),
        (lambda data: b"just some words", "is not a png or jpg"),
        (lambda data: data[:24], "is cut off"),
    ],
    ids=["empty", "cut", "text", "header only"],
)
def test_a_broken_image_is_refused_by_name(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes], says: str
) -> None:
    folder = write_images(tmp_path / "images", ["0" + name[1:], name])
    path = folder / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ClipError, match=f"{name} {says}"):
        load_clip(folder, count=2)


def test_a_png_with_a_damaged_body_is_refused(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", ["0.png"])
    data = bytearray((folder / "0.png").read_bytes())
    start = data.index(b"IDAT")
    data[start - 4 : start + 40] = bytes(44)
    (folder / "0.png").write_bytes(data)
    with pytest.raises(ClipError, match=r"0\.png is damaged"):
        load_clip(folder, count=1)


def test_an_image_that_states_a_huge_size_is_refused_from_its_header(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", ["0.png"])
    data = bytearray((folder / "0.png").read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    (folder / "0.png").write_bytes(data)
    with pytest.raises(ClipError, match="60000x60000"):
        load_clip(folder, count=1)


def test_a_real_folder_of_stills_is_read(media: Path) -> None:
    clip = load_clip(media / "kitchen", count=None)
    assert clip.frames.shape == (25, 144, 256, 3)
    assert clip.source_size == (520, 779)
