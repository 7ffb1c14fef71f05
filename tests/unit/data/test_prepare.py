"""Filling a store: what it keeps."""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import prepared_samples as samples
import pytest
from filling import OPTIONS, fill, hashes, settings
from prepared_samples import FRAMES, Tiny

from explorer import references
from explorer._resize import cover_crop
from explorer.cli import main
from explorer.clip import Clip
from explorer.data.prepared.make import Step, picture_size
from explorer.data.prepared.shards import open_shards
from explorer.data.readers.prepared import open_prepared
from explorer.data.splits import read_split


def test_every_scene_is_kept_with_its_geometry_but_the_one_that_fails(
    folder: Path, tmp_path: Path
) -> None:
    steps: list[Step] = []
    summary = fill(folder, tmp_path / "store", on_step=steps.append)
    assert (summary["prepared"], summary["failed"], summary["left"]) == (5, 1, 0)
    assert [step.scene for step in steps] == ["s0", "s1", "s2", "s3", "s4", "s5"]
    assert [step.done for step in steps] == [1, 2, 3, 4, 5, 6]
    assert [step.failed is not None for step in steps] == [n == 3 for n in range(6)]
    store = open_prepared(tmp_path / "store")
    assert store.names == ("s0", "s1", "s2", "s4", "s5")
    assert list(store.manifest.failed) == ["s3"]
    assert "too few" in store.manifest.failed["s3"]
    store.verify()


def test_the_index_says_what_each_clip_is(folder: Path, tmp_path: Path) -> None:
    fill(folder, tmp_path / "store", limit=1)
    listed = json.loads((tmp_path / "store" / "shard-00000.json").read_text())["clips"][0]
    assert listed["scene"] == "s0"
    assert listed["window"] == {"start": 0, "stride": 1, "count": FRAMES}
    assert listed["reference"]["id"] == "tiny-dense"
    assert listed["unit_name"] == "m"
    assert listed["unit"] == pytest.approx(2.6, abs=0.3)
    assert listed["split"]["place"] == "tiny::p0"
    assert len(listed["split"]["identity"]) == len(listed["sha256"]) == 64
    assert set(listed["seconds"]) == {"decode", "reference", "total"}
    assert listed["precision"]["depth_error"] < 1.23e-4


def test_a_shard_is_a_tar_file_that_anybody_can_open(folder: Path, tmp_path: Path) -> None:
    fill(folder, tmp_path / "store", limit=2)
    with tarfile.open(tmp_path / "store" / "shard-00000.tar") as archive:
        names = archive.getnames()
        assert len(names) == len(set(names)) == 2 * (1 + 3 * FRAMES)
        assert names[:2] == ["000000.clip.json", "000000.000.jpg"]
        file = archive.extractfile("000001.004.depth.png")
        assert file is not None
        assert file.read().startswith(b"\x89PNG")


def test_a_second_run_makes_nothing_again_and_more_scenes_are_added(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "store"
    fill(folder, out, limit=2)
    before, split = hashes(out), read_split(out / "split.json")
    steps: list[Step] = []
    summary = fill(folder, out, on_step=steps.append)
    assert [(step.scene, step.done) for step in steps] == [
        ("s2", 3), ("s3", 4), ("s4", 5), ("s5", 6),
    ]  # fmt: skip
    assert summary["prepared"] == 5
    after, grown = hashes(out), read_split(out / "split.json")
    assert {name: after[name] for name in before} == before
    assert all(grown.side(each.scene) == side for side in split.sides for each in split.sides[side])
    steps.clear()
    assert fill(folder, out, on_step=steps.append)["prepared"] == 5
    assert steps == []


def test_failed_scenes_are_tried_again_when_asked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "store"
    fill(folder, out)
    monkeypatch.setattr(Tiny, "open", lambda self, entry: samples.TinyScene(entry, 3))
    assert fill(folder, out)["failed"] == 1
    assert fill(folder, out, retry=True)["failed"] == 0
    assert "s3" in open_prepared(out).names


def test_an_unexpected_error_is_one_scene_s_failure(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(clip: Any, context: Any) -> Any:
        if clip.name.endswith("s1"):
            raise RuntimeError("CUDA out of memory")
        return samples.dense(clip, context)

    monkeypatch.setitem(references._references, "tiny-dense", samples.entry(breaks))
    fill(folder, tmp_path / "store", limit=3)
    store = open_prepared(tmp_path / "store")
    assert store.names == ("s0", "s2")
    assert store.manifest.failed == {"s1": "RuntimeError: CUDA out of memory"}


def test_the_same_recording_under_two_names_is_kept_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tiny, "open", lambda self, entry: samples.TinyScene(entry, 1))
    fill(folder, tmp_path / "store", limit=2)
    failed = open_prepared(tmp_path / "store").manifest.failed
    assert failed == {"s1": "it is the same recording as s0"}


def test_a_file_ends_before_it_is_too_large(folder: Path, tmp_path: Path) -> None:
    whole = fill(folder, tmp_path / "one", limit=3)
    assert whole["shards"] == 1
    bound = whole["bytes"] * 5 // 6
    assert fill(folder, tmp_path / "two", limit=3, shard_bytes=bound)["shards"] == 2
    assert hashes(tmp_path / "two") == hashes(tmp_path / "one")
    assert all(each.bytes <= bound for each in open_shards(tmp_path / "two"))
    assert fill(folder, tmp_path / "three", limit=3, shard_bytes=1)["shards"] == 3


def test_the_command_prints_a_summary_and_a_line_for_each_scene(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prepare", "auto", str(folder), "--out", str(tmp_path / "store"), *OPTIONS]
    assert main([*arguments, "--json", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert printed["prepared"] == 5
    assert list(printed["failures"]) == ["s3"]
    assert printed["split"]["sha256"] == read_split(tmp_path / "store" / "split.json").sha256
    lines = err.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("1/6 s0 ")
    assert lines[3].startswith("4/6 s3 failed: s3 has 4 frames, too few")
    assert main([*arguments, "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "5 scenes in" in out
    assert err == ""
    assert main([*arguments, "--verify"]) == 0
    assert "all 5 clips" in capsys.readouterr().out
    assert main([*arguments, "--frames", "5"]) == 2
    assert "you ask for frames 5, not 9" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_is_a_bar_that_goes_on_where_the_last_run_stopped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, tmp_path / "store", limit=2)
    monkeypatch.setattr("sys.stderr", Terminal())
    arguments = ["prepare", "tiny", str(folder), "--out", str(tmp_path / "store"), *OPTIONS]
    assert main([*arguments, "--device", "cpu"]) == 0
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "0/6" in shown
    assert re.search(r"100%.* 6/6 .*s5", shown)
    assert "1/6" not in shown  # scenes that were there
    assert re.search(r"^s3 failed: s3 has 4 frames, too few", shown.replace("\r", "\n"), re.M)


def test_only_some_scenes_are_prepared_where_they_are_named(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    arguments = ["prepare", "tiny", str(folder), "--out", str(out), *OPTIONS, "--device", "cpu"]
    assert main([*arguments, "--only", "s4", "s1"]) == 0
    assert open_prepared(out).names == ("s1", "s4")
    assert main([*arguments, "--only", "s"]) == 2  # folders, not beginnings


def test_pictures_may_be_kept_larger_than_what_the_reference_sees(
    folder: Path, tmp_path: Path
) -> None:
    fill(folder, tmp_path / "store", settings(size=(12, 16), scale=2.0), limit=1)
    scene = open_prepared(tmp_path / "store").scene("s0")
    assert scene.pictures([0]).shape == (1, 24, 32, 3)
    assert scene.maps([0]).size == (12, 16)
    clip = scene.clip(count=5, size=(12, 16))
    found, kept = scene.reconstruction(clip).depth[0], scene.maps([0]).depth[0]
    np.testing.assert_allclose(found, kept, rtol=5e-5)  # its unit is measured again


@pytest.mark.parametrize(
    ("source", "size", "most", "kept"),
    [
        ((540, 960), (294, 518), 2.0, (537, 946)),  # as far as the source goes
        ((1080, 1920), (294, 518), 2.0, (588, 1036)),
        ((1080, 1920), (294, 518), 1.5, (441, 777)),
        ((1080, 1920), (294, 518), 1.0, (294, 518)),
        ((240, 320), (294, 518), 2.0, (294, 518)),
        ((24, 32), (12, 16), 2.0, (24, 32)),
    ],
)
def test_pictures_are_kept_as_large_as_the_source_has_them(
    source: tuple[int, int], size: tuple[int, int], most: float, kept: tuple[int, int]
) -> None:
    crop = cover_crop(source, size)
    clip = Clip(
        np.zeros((1, *size, 3), np.uint8), np.zeros(1), "", "", "", np.zeros(1, np.int64),
        source, crop,
    )  # fmt: skip
    found = picture_size(clip, most)
    assert found == kept
    assert cover_crop(source, found) == crop


def test_the_summary_says_how_large_pictures_are(folder: Path, tmp_path: Path) -> None:
    summary = fill(folder, tmp_path / "store", settings(size=(12, 16), scale=1.5), limit=2)
    assert [list(each) for each in summary["picture_sizes"]] == [[18, 24]]
    scene = open_prepared(tmp_path / "store").scene("s0")
    assert scene.picture_size == (18, 24)  # type: ignore[attr-defined]
    at_maps = scene.clip(count=1, size=(12, 16))
    depth = scene.reconstruction(at_maps).depth
    kept = scene.maps([0]).depth  # type: ignore[attr-defined]
    np.testing.assert_allclose(depth, kept, rtol=5e-5)
