from __future__ import annotations

import os
import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clip_samples import MakeVideo, pattern

from explorer import _decode
from explorer.clip import Limits, inspect_video, load_clip
from explorer.errors import ClipError


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


def test_a_file_that_may_not_be_read_is_named(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ClipError, match=r"tiny\.mp4 cannot be read \(Permission denied\)"):
        load_clip(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ClipError, match="neither a file nor a folder"):
        load_clip(tmp_path / "pipe.mp4")


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
