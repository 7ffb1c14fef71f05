"""`emerge3d export`: the files of a look, read back by other libraries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trimesh

from explorer.cli import main
from explorer.errors import EmergeError
from explorer.export import export
from explorer.look import Stage
from explorer.recording import points_by_frame

CLIP = "room-orbit-01"
FILES = [
    "aligned.ply", "look.json", "look.rrd", "prediction.npz", "prediction.ply", "reference.npz",
    "reference.ply",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a look at a shipped clip exports; latents need no transformer."""
    base = tmp_path_factory.mktemp("exports")
    words = ["--backbone", "latent", "--device", "cpu", "--cache", str(base / "store")]
    assert main(["export", CLIP, *words, "--out", str(base / "found")]) == 0
    return base / "found"


def test_all_files_are_there_and_readable_by_everyone(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert folder.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_the_clouds_hold_the_known_points_and_the_aligned_one_gives_the_stated_error(
    folder: Path,
) -> None:
    summary = json.loads((folder / "look.json").read_text())
    sides = {name: np.load(folder / f"{name}.npz") for name in ("prediction", "reference")}
    clouds = {}
    for name in ("prediction", "reference"):
        known = (sides[name]["confidence"] > 0) & (sides[name]["depth"] > 0)
        clouds[name] = trimesh.load(folder / f"{name}.ply")
        assert np.allclose(clouds[name].vertices, sides[name]["points"][known], atol=1e-5)
        assert clouds[name].colors[:, :3].std() > 5  # those of the clip

    alignment = summary["alignment"]
    carried = alignment["scale"] * clouds["prediction"].vertices @ np.array(
        alignment["rotation"]
    ).T + np.array(alignment["translation"])
    aligned = trimesh.load(folder / "aligned.ply").vertices
    assert np.allclose(aligned, carried, atol=1e-5)
    both = (sides["reference"]["confidence"] > 0) & (sides["reference"]["depth"] > 0)
    predicted = (sides["prediction"]["confidence"] > 0) & (sides["prediction"]["depth"] > 0)
    off = np.linalg.norm(aligned[both[predicted]] - sides["reference"]["points"][both], axis=1)
    assert off.mean() == pytest.approx(summary["point_error"], rel=1e-3)


def test_arrays_and_recording_are_of_the_same_frames(folder: Path) -> None:
    found = np.load(folder / "prediction.npz")
    assert (
        found["frames"].tolist() == [0, 1, 5, 9, 13] == list(points_by_frame(folder / "look.rrd"))
    )
    assert found["cam_from_world"].shape == (5, 3, 4)
    assert found["intrinsics"].shape == (5, 3, 3)


def test_a_folder_that_is_there_stays_as_it_is(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["export", CLIP, "--backbone", "latent", "--out", str(folder)]) == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_look_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fails() -> Iterator[Stage]:
        raise EmergeError("the clip is broken")
        yield

    with pytest.raises(EmergeError, match="broken"):
        export(fails(), tmp_path / "found")
    assert list(tmp_path.iterdir()) == []
