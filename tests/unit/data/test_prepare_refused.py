"""What is not filled into a store, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import prepared_samples as samples
import pytest
from filling import fill, hashes, settings

from explorer import references
from explorer.cli import main
from explorer.data.prepared.manifest import Settings, read_manifest, sole_writer
from explorer.errors import DatasetError, ReferenceError3D


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 5}, "frames 5, not 9"),
        ({"size": (12, 16)}, r"size \(12, 16\), not \(24, 32\)"),
        ({"quality": 80}, "quality 80, not 95"),
        ({"reference": "tiny-sparse"}, "reference tiny-sparse, not tiny-dense"),
    ],
)
def test_other_settings_into_the_same_folder_are_refused(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    fill(folder, tmp_path / "store", limit=1)
    before = hashes(tmp_path / "store")
    values = {**vars(settings()), **changes}
    with pytest.raises(DatasetError, match=message):
        fill(folder, tmp_path / "store", Settings(**values))
    assert hashes(tmp_path / "store") == before


def test_other_weights_of_the_reference_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    def of(weights: str) -> references.Entry:
        def reference(clip: Any, context: Any) -> Any:
            found = samples.dense(clip, context)
            assert found is not None
            return replace(found, provenance={**found.provenance, "weights": weights})

        return samples.entry(reference)

    monkeypatch.setitem(references._references, "tiny-dense", of("a" * 64))
    fill(folder, tmp_path / "store", limit=1)
    monkeypatch.setitem(references._references, "tiny-dense", of("b" * 64))
    with pytest.raises(DatasetError, match=r"other weights of tiny-dense \(aaaaaaaaaaaa\)"):
        fill(folder, tmp_path / "store", limit=2)
    assert list(hashes(tmp_path / "store")) == ["s0"]


def test_a_folder_with_other_things_is_left_alone(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds other things \(tiny\)"):
        fill(folder, folder)
    assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == ["tiny"]


def test_two_runs_do_not_fill_one_store_together(folder: Path, tmp_path: Path) -> None:
    with (
        sole_writer(tmp_path / "store"),
        pytest.raises(DatasetError, match="being filled by another process"),
    ):
        fill(folder, tmp_path / "store")


def test_points_that_would_be_lost_stop_the_run(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="are not its depth seen through its cameras"):
        fill(folder, tmp_path / "store", settings("tiny-points"))


def test_an_unknown_reference_is_refused_before_anything_is_made(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ReferenceError3D, match="there is no reference 'x'"):
        fill(folder, tmp_path / "store", settings("x"))
    assert not (tmp_path / "store").exists()


def test_whoever_can_is_no_reference_of_a_training_set(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ReferenceError3D, match="another judge for each clip"):
        fill(folder, tmp_path / "out", settings("estimate"))
    assert not (tmp_path / "out").exists()


def test_when_every_scene_fails_the_command_says_why(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "store")
    arguments = ["prepare", "tiny", str(folder), "--out", out, "--reference", "tiny-dense"]
    assert main([*arguments, "--frames", "50", "--device", "cpu"]) == 2
    assert "no scene could be prepared; s0: s0 has 11 frames, too few" in capsys.readouterr().err
    assert len(read_manifest(tmp_path / "store").failed) == 6
