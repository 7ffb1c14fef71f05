from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clip_samples import pattern

from explorer._video import save_mp4
from explorer.clip import inspect_video, load_clip
from explorer.errors import ClipError


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
