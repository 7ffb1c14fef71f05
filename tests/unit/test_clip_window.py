from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clip_samples import MakeVideo, numbers, pattern

from explorer import _decode
from explorer.clip import Limits, clip_from_frames, inspect_video, load_clip
from explorer.errors import ClipError


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
