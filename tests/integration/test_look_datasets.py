"""A look at what a dataset holds, and at what nobody knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from explorer.cli import main
from explorer.look import look


@pytest.mark.parametrize("folder_has", [1, 2])
def test_a_look_at_a_datasets_scene_uses_its_geometry(
    folder_has: int, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rgbd(tmp_path / "data" / "one")
    if folder_has == 2:
        write_rgbd(tmp_path / "data" / "two")
        arguments = ["look", str(tmp_path / "data"), "--backbone", "tiny"]
        assert main(arguments) == 2
        assert "one, two" in capsys.readouterr().err
    named = f"{tmp_path / 'data'}::one" if folder_has == 2 else str(tmp_path / "data")
    assert main(["look", named, "--backbone", "tiny", "--count", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["point_error"] > 0
    reference = found["provenance"]["reference"]
    assert (reference["id"], reference["dataset"], reference["scene"]) == (
        "sensor",
        "transforms",
        "one",
    )
    assert found["provenance"]["clip"]["name"] == "transforms::one"


def write_rgbd(folder: Path) -> None:
    """A wall filmed by a camera that slides along it, as a nerfstudio folder."""
    (folder / "images").mkdir(parents=True)
    (folder / "depth").mkdir()
    frames = []
    for number in range(6):
        picture = np.random.default_rng(number).integers(0, 255, (64, 96, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"images/{number}.png"), picture)
        depth = np.full((64, 96), 2000, dtype=np.uint16)
        cv2.imwrite(str(folder / f"depth/{number}.png"), depth)
        pose = np.eye(4)
        pose[0, 3] = 0.1 * number
        frames.append(
            {
                "file_path": f"images/{number}.png",
                "depth_file_path": f"depth/{number}.png",
                "transform_matrix": pose.tolist(),
            }
        )
    camera = {"w": 96, "h": 64, "fl_x": 80.0, "cx": 48.0, "cy": 32.0}
    (folder / "transforms.json").write_text(json.dumps({**camera, "frames": frames}))


def test_nobody_who_knows_a_video_is_not_an_error(tiny: Any, make_video: Any) -> None:
    request = tiny.ask(path=make_video("other.mp4", count=9, size=(64, 96)))
    found = list(look(request, store=tiny.store))[-1].summary
    assert found["point_error"] is None
    assert found["provenance"]["reference"] is None
    (said,) = (each for each in found["notes"] if each.startswith("no reference: none has the"))
    assert "the reference 'estimate' asks" in said
