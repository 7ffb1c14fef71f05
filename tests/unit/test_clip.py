from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from explorer import _decode
from explorer._resize import cover_crop
from explorer._video import save_mp4
from explorer.clip import (
    Clip,
    Limits,
    clip_from_frames,
    inspect_video,
    load_clip,
)
from explorer.errors import ClipError

MakeVideo = Callable[..., Path]


def pattern(count: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Frames whose top left 16x16 pixels are grey of value 10 + 5 * number; see `make_video`."""
    frames = np.full((count, height, width, 3), 90, dtype=np.uint8)
    frames[:, height // 2 :, :, 0] = 180
    for number in range(count):
        frames[number, :16, :16] = 10 + 5 * number
    return frames


def numbers(clip: Clip) -> list[int]:
    return [round((float(frame[4:12, 4:12].mean()) - 10) / 5) for frame in clip.frames]


def write_images(folder: Path, names: list[str], *, size: tuple[int, int] = (96, 128)) -> Path:
    folder.mkdir(exist_ok=True)
    for name, frame in zip(names, pattern(len(names), *size), strict=True):
        assert cv2.imwrite(str(folder / name), frame[..., ::-1])
    return folder


def turn_header(path: Path, matrix: tuple[int, ...]) -> None:
    """Overwrite the display matrix of the first track, as a phone held upright writes it."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


ONE, W = 1 << 16, 1 << 30


# --- what a window of a video is -----------------------------------------------------------------


def test_start_stride_and_count_choose_exactly_those_frames(make_video: MakeVideo) -> None:
    path = make_video(count=24, fps=24)
    clip = load_clip(path, start=3, stride=2, count=9, size=None)
    assert numbers(clip) == list(range(3, 20, 2))
    assert clip.source_frames.tolist() == list(range(3, 20, 2))
    assert np.allclose(clip.timestamps, np.arange(3, 20, 2) / 24, atol=1e-6)
    assert clip.frames.dtype == np.uint8
    assert clip.frames.shape == (9, 96, 128, 3)


def test_frames_reached_from_a_key_frame_equal_those_of_a_full_decode(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(count=24, gop=6)
    whole = load_clip(path, count=None, size=None)
    assert len(whole) == 24
    decoded: list[int | None] = []
    original = _decode._decode_from

    def spy(path: Path, wanted: list[int], limits: Limits, seek_to: int | None) -> object:
        decoded.append(seek_to)
        return original(path, wanted, limits, seek_to)

    monkeypatch.setattr(_decode, "_decode_from", spy)
    for start in range(20):
        part = load_clip(path, start=start, count=3, size=None)
        assert np.array_equal(part.frames, whole.frames[start : start + 3])
    sought = [position for position in decoded if position is not None]
    assert len(set(sought)) >= 3, "late windows start at a key frame"
    assert len(decoded) == 20, "and none of them needs a second attempt"


def test_a_false_key_frame_falls_back_to_the_beginning(make_video: MakeVideo) -> None:
    path = make_video(count=24, gop=100)
    index = _decode.read_index(path, Limits())
    lying = replace(index, keyframes=index.pts[::4])
    whole = load_clip(path, count=None, size=None)
    pictures = [picture.rgb for picture in _decode.decode(path, lying, [10, 11], Limits())]
    assert np.array_equal(pictures, whole.frames[10:12])


def test_only_what_the_window_needs_is_decoded(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, converted = make_video(count=24), []
    original = _decode._upright
    monkeypatch.setattr(
        _decode, "_upright", lambda frame, aspect: converted.append(1) or original(frame, aspect)
    )
    load_clip(path, start=2, stride=3, count=5)
    assert len(converted) == 5


def test_inspect_states_frames_rate_length_and_size(make_video: MakeVideo) -> None:
    info = inspect_video(make_video(count=24, fps=12, size=(96, 128)))
    assert (info.frames, info.fps, info.size) == (24, 12.0, (96, 128))
    assert info.seconds == pytest.approx(2.0, abs=1e-6)


# --- size ----------------------------------------------------------------------------------------


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


# --- hashes --------------------------------------------------------------------------------------


def test_the_hash_follows_bytes_and_sampling_and_never_the_path(make_video: MakeVideo) -> None:
    path = make_video(count=24)
    copy = path.with_name("other name.mov")
    shutil.copy(path, copy)
    first = load_clip(path)
    assert load_clip(copy).content_hash == first.content_hash
    assert load_clip(copy).name == "other name.mov"
    assert first.source_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    others = [
        load_clip(path, start=1),
        load_clip(path, count=16),
        load_clip(path, count=9, stride=2),
        load_clip(path, size=(72, 128)),
        load_clip(path, size=None),
        load_clip(make_video("b.mp4", count=25)),
    ]
    assert len({clip.content_hash for clip in [first, *others]}) == 7
    assert {clip.source_hash for clip in others[:-1]} == {first.source_hash}
    everything = load_clip(path, count=None)
    assert everything.content_hash == load_clip(path, count=24).content_hash


def test_an_array_of_frames_becomes_a_clip_hashed_by_its_pixels() -> None:
    frames = pattern(5)
    clip = clip_from_frames(frames, name="rendered", fps=10.0)
    assert np.array_equal(clip.frames, frames)
    assert np.allclose(clip.timestamps, np.arange(5) / 10)
    assert clip.crop == (0, 0, 96, 128)
    frames[2, 0, 0, 0] += 1
    assert clip.frames[2, 0, 0, 0] != frames[2, 0, 0, 0], "the clip owns its frames"
    assert clip_from_frames(frames, name="rendered").content_hash != clip.content_hash
    with pytest.raises(ClipError, match="non-empty"):
        clip_from_frames(frames[:0], name="nothing")
    with pytest.raises(ClipError, match="fps"):
        clip_from_frames(frames, name="still", fps=0.0)


# --- folders of images ---------------------------------------------------------------------------


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


# --- bad videos ----------------------------------------------------------------------------------


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("This is a text file.\n" * 100)


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _without_index(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])


def _playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n")


def _image(path: Path) -> None:
    path.write_bytes(cv2.imencode(".png", pattern(1)[0])[1].tobytes())


def _noise_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 200
    data[start:] = np.random.default_rng(0).bytes(len(data) - start)
    path.write_bytes(data)


def _sound_only(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=16000)
        stream.layout = "mono"
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        sound.sample_rate = 16000
        output.mux(stream.encode(sound))
        output.mux(stream.encode(None))


def _no_frames(path: Path) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "empty_moov"}) as output:
        stream = output.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        output.start_encoding()


def _countless_boxes(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0\0\0\x08free" * (_decode.MAX_BOXES + 1))


BAD = {
    "empty": (_empty, "is empty"),
    "text": (_text, "is not a video"),
    "cut off": (_cut, "is cut off"),
    "no index": (_without_index, "is incomplete"),
    "playlist": (_playlist, "is not a video"),
    "image": (_image, "is not a video"),
    "damaged": (_noise_in_the_middle, "damaged"),
    "sound only": (_sound_only, "only sound"),
    "no frames": (_no_frames, "no frames"),
    "countless boxes": (_countless_boxes, "more than 100000 parts"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_video_gives_one_error_that_says_what_is_wrong_and_what_to_do(
    make_video: MakeVideo, case: str
) -> None:
    damage, says = BAD[case]
    path = make_video(count=24)
    damage(path)
    before = sorted(path.parent.iterdir())
    with pytest.raises(ClipError, match=says) as caught:
        load_clip(path)
    message = str(caught.value)
    assert path.name in message
    assert any(word in message for word in ("choose", "copy", "convert", "export", "upload"))
    assert "\n" not in message
    assert str(path.parent) not in message
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize("case", sorted(set(BAD) - {"damaged"}))
def test_inspect_refuses_the_same_files(make_video: MakeVideo, case: str) -> None:
    damage, says = BAD[case]
    path = make_video(count=24)
    damage(path)
    with pytest.raises(ClipError, match=says):
        inspect_video(path)


@pytest.mark.parametrize("seed", range(12))
def test_bytes_changed_at_random_give_frames_or_a_clip_error(
    make_video: MakeVideo, seed: int
) -> None:
    path = make_video(count=12)
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    generator = np.random.default_rng(seed)
    header = data.tobytes().index(b"mdat") if seed % 2 else len(data)
    data[generator.integers(32, header, 20)] = generator.integers(0, 256, 20)
    path.write_bytes(data.tobytes())
    try:
        clip = load_clip(path, count=5, limits=Limits(wall_seconds=10.0))
    except ClipError:
        return
    assert clip.frames.shape == (5, 144, 256, 3)


def test_a_missing_file_another_format_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="does not exist"):
        load_clip(tmp_path / "nothing.mp4")
    (tmp_path / "film.avi").write_bytes(b"RIFF")
    with pytest.raises(ClipError, match="convert it to mp4"):
        load_clip(tmp_path / "film.avi")
    (tmp_path / "void").mkdir()
    with pytest.raises(ClipError, match="no png or jpg"):
        load_clip(tmp_path / "void")
    with pytest.raises(ClipError, match="not a usable path|does not exist"):
        load_clip("a\0b.mp4")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ClipError, match="neither a file nor a folder"):
        load_clip(tmp_path / "pipe.mp4")


def test_a_window_that_does_not_fit_says_which_would(make_video: MakeVideo) -> None:
    path = make_video(count=20)
    with pytest.raises(ClipError, match="at most 15 frames, or start at frame 3 or before"):
        load_clip(path, start=5, count=17)
    with pytest.raises(ClipError, match="at most 10 frames, or use a stride of at most 1 "):
        load_clip(path, stride=2, count=17)
    with pytest.raises(ClipError, match="start at 19 or before"):
        load_clip(path, start=20, count=1)
    for wrong in ({"start": -1}, {"stride": 0}, {"count": 0}, {"size": (0, 5)}):
        with pytest.raises(ClipError):
            load_clip(path, **wrong)


def test_a_script_renamed_to_mp4_cannot_open_other_files(
    make_video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video("private.mp4")
    script = tmp_path / "script.mp4"
    script.write_text("ffconcat version 1.0\nfile private.mp4\n")
    with pytest.raises(ClipError, match="is not a video"):
        load_clip(script)
    monkeypatch.setattr(_decode, "check_boxes", lambda _: None)
    with pytest.raises(ClipError, match="cannot be decoded"):
        load_clip(script)


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(bytes=1000), "MB are accepted"),
        (Limits(pixels=96 * 128 - 1), "million pixels are accepted"),
        (Limits(seconds=0.5), "s are accepted"),
        (Limits(frames=16), "at most 16 are accepted"),
        (Limits(wall_seconds=0.0), "too many frames|takes longer"),
    ],
)
def test_limits_are_checked_before_anything_is_decoded(
    make_video: MakeVideo, limits: Limits, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(count=24)

    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(_decode, "decode", decode)
    with pytest.raises(ClipError, match=says):
        load_clip(path, limits=limits)


def test_an_image_that_states_a_huge_size_is_refused_from_its_header(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", ["0.png"])
    data = bytearray((folder / "0.png").read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    (folder / "0.png").write_bytes(data)
    with pytest.raises(ClipError, match="60000x60000"):
        load_clip(folder, count=1)


def test_frames_larger_than_the_header_says_are_refused_by_the_decoder_itself(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(size=(96, 128))
    monkeypatch.setattr(Limits, "check_pixels", lambda *_: None)
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack(">HH", 128, 96), struct.pack(">HH", 16, 16)))
    assert load_clip(path, size=None, limits=Limits(pixels=97 * 129)).size == (96, 128)
    with pytest.raises(ClipError, match="cannot be decoded|damaged"):
        load_clip(path, limits=Limits(pixels=64 * 64))


# --- writing -------------------------------------------------------------------------------------


def test_a_saved_mp4_comes_back_with_all_frames_and_unshifted_colours(tmp_path: Path) -> None:
    frames = pattern(6)
    save_mp4(frames, tmp_path / "out.mp4", fps=12.0)
    clip = load_clip(tmp_path / "out.mp4", count=None, size=None)
    error = clip.frames.astype(float) - frames
    assert len(clip) == 6
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 0.6
    assert 10 * np.log10(255**2 / (error**2).mean()) > 38
    assert inspect_video(tmp_path / "out.mp4").fps == 12.0


def test_the_same_frames_make_the_same_file(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        save_mp4(pattern(6), tmp_path / name)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_failed_save_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.mp4"
    save_mp4(pattern(3), path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_mp4(pattern(4), path)
    with pytest.raises(ClipError, match="even height and width"):
        save_mp4(pattern(4, 95, 128), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- the rest ------------------------------------------------------------------------------------


def test_importing_the_clip_loads_neither_torch_nor_a_decoder() -> None:
    code = "import sys, explorer.clip; print([m for m in ('torch','av','cv2') if m in sys.modules])"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert output.stdout.strip() == "[]"


def test_a_real_video_gives_the_same_frames_from_any_start(media: Path) -> None:
    path = media / "Colosseum.mp4"
    info = inspect_video(path)
    assert (info.frames, info.fps, info.size) == (567, 25.0, (360, 640))
    late = load_clip(path, start=300, stride=2, count=9)
    again = load_clip(path, start=280, count=37)
    assert np.array_equal(late.frames, again.frames[20::2])


def test_a_real_folder_of_stills_is_read(media: Path) -> None:
    clip = load_clip(media / "kitchen", count=None)
    assert clip.frames.shape == (25, 144, 256, 3)
    assert clip.source_size == (520, 779)
