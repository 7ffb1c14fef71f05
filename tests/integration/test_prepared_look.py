"""From videos with known geometry to a store, and looks at what is in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from explorer.cli import main


def test_a_prepared_scene_can_be_looked_at_like_the_video(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    shutil.copy(tiny.request.path, tmp_path / "videos" / "one.mp4")
    size = ["--size", *map(str, tiny.backbone.card.input_size)]
    made = ["--out", str(tmp_path / "made"), "--reference", "exact", "--frames", "5", "--lossless"]
    arguments = ["prepare", "auto", str(tmp_path / "videos"), *made, *size]
    assert main([*arguments, "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["precision"]["picture_psnr_db"] is None
    options = ["--backbone", "tiny", "--count", "5", "--stride", "1", "--device", "cpu", "--json"]
    assert main(["look", str(tiny.request.path), *options]) == 0
    video = json.loads(capsys.readouterr().out)
    assert main(["look", f"{tmp_path / 'made'}::one", *options]) == 0
    kept = json.loads(capsys.readouterr().out)
    assert video["provenance"]["reference"]["id"] == "exact"
    assert kept["provenance"]["reference"]["id"] == "sensor"
    for name in ("point_error", "depth_error", "correspondence_error_px"):
        assert video[name] > 0
        assert kept[name] == pytest.approx(video[name], rel=1e-3)
