from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from clip_samples import MakeVideo

from explorer._resize import cover_crop, resize
from explorer.clip import Fit, inspect_video, load_clip

ONE, W = 1 << 16, 1 << 30  # in the fixed-point numbers of a display matrix


def turn_header(path: Path, matrix: tuple[int, ...]) -> None:
    """Overwrite the display matrix of the first track, as a phone held upright writes it."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("source", "size", "crop"),
    [
        ((360, 640), (144, 256), (0, 0, 360, 640)),
        ((640, 360), (144, 256), (219, 0, 202, 360)),
        ((480, 640), (144, 256), (60, 0, 360, 640)),
        ((200, 1000), (100, 100), (0, 400, 200, 200)),
        ((1, 1000), (1000, 1), (0, 499, 1, 1)),
    ],
)
def test_the_crop_is_the_largest_centred_part_of_the_wanted_shape(
    source: tuple[int, int], size: tuple[int, int], crop: tuple[int, int, int, int]
) -> None:
    assert cover_crop(source, size) == crop


def test_wide_pixels_are_cropped_by_their_shape_on_the_screen() -> None:
    assert cover_crop((480, 640), (90, 160), pixel_aspect=4 / 3) == (0, 0, 480, 640)


def test_resizing_shows_the_cropped_part_averaged_over_areas(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 96, 160, 3), dtype=np.uint8)
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), frames[0, ..., ::-1])
    clip = load_clip(folder, count=1, size=(32, 32))
    y0, x0, height, width = clip.crop
    assert clip.crop == (0, 32, 96, 96)
    assert clip.source_size == (96, 160)
    part = frames[0, y0 : y0 + height, x0 : x0 + width].astype(np.float64)
    mean = part.reshape(32, 3, 32, 3, 3).mean(axis=(1, 3))
    assert np.abs(clip.frames[0] - mean).max() <= 0.75


@pytest.mark.parametrize("source", [(96, 160), (160, 96), (97, 131)])
@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_pixels_of_a_fitted_clip_lead_to_the_source_and_back(
    tmp_path: Path, source: tuple[int, int], fit: Fit
) -> None:
    y, x = np.mgrid[0 : source[0], 0 : source[1]]
    ramp = np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)  # a pixel says where it is
    cv2.imwrite(str(tmp_path / "0.png"), ramp[..., ::-1])
    clip = load_clip(tmp_path, count=1, size=(32, 48), fit=fit)
    assert clip.fit == fit
    assert (clip.crop == (0, 0, *source)) == (fit == "stretch")
    for row, column in ((0, 0), (5, 40), (31, 47), (16, 24)):
        x, y = column + 0.5, row + 0.5
        left, top = clip.to_source(x, y)
        assert clip.from_source(left, top) == pytest.approx((x, y))
        seen = clip.frames[0, row, column, :2] + 0.5
        assert np.abs(seen - (left, top)).max() <= 1.5


def test_how_a_clip_is_fitted_is_in_its_hash(make_video: MakeVideo) -> None:
    path = make_video(size=(96, 128))
    found = [load_clip(path, size=(32, 64), fit=fit).content_hash for fit in ("crop", "stretch")]
    assert found[0] != found[1]
    assert load_clip(path, size=(32, 64)).content_hash == found[0]
    whole = [load_clip(path, size=None, fit=fit).content_hash for fit in ("crop", "stretch")]
    assert whole[0] == whole[1], "nothing is fitted without a size"


def test_a_clip_of_the_wanted_size_keeps_its_pixels(make_video: MakeVideo) -> None:
    path = make_video(size=(96, 128))
    same, raw = load_clip(path, size=(96, 128)), load_clip(path, size=None)
    assert np.array_equal(same.frames, raw.frames)
    assert same.crop == raw.crop == (0, 0, 96, 128)


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [
        ((0, ONE, 0, -ONE, 0, 0, 0, 0, W), 3),  # to be shown turned 90 degrees clockwise
        ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, W), 2),
        ((0, -ONE, 0, ONE, 0, 0, 0, 0, W), 1),
    ],
    ids=["90", "180", "270"],
)
def test_a_video_taken_with_a_turned_phone_comes_out_upright(
    make_video: MakeVideo, matrix: tuple[int, ...], turns: int
) -> None:
    path = make_video(size=(96, 128))
    lying = load_clip(path, count=2, size=None)
    turn_header(path, matrix)
    upright = load_clip(path, count=2, size=None)
    assert np.array_equal(upright.frames, np.rot90(lying.frames, turns, axes=(1, 2)))
    assert upright.source_size == inspect_video(path).size == upright.size


def test_shrinking_averages_areas() -> None:
    board = np.indices((8, 8)).sum(axis=0)[..., None] % 2 * np.full(3, 200)
    assert np.array_equal(resize(board.astype(np.uint8), (2, 2)), np.full((2, 2, 3), 100))


def test_growing_mixes_neighbours_and_a_fitting_picture_is_not_copied() -> None:
    edge = np.zeros((1, 2, 3), dtype=np.uint8)
    edge[:, 1] = 200
    assert resize(edge, (1, 4))[0, :, 0].tolist() == [0, 50, 150, 200]
    assert resize(edge, (1, 2)) is edge
