"""Filling a store: what it keeps, what stops it, and what does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import prepared_samples as samples
import pytest
from prepared_samples import FRAMES, SIZE, Tiny

from explorer import references
from explorer._resize import cover_crop
from explorer.cli import main
from explorer.clip import Clip
from explorer.data.dataset import SceneEntry, open_dataset
from explorer.data.prepared.make import Step, picture_size, prepare
from explorer.data.prepared.manifest import Settings, read_manifest, sole_writer
from explorer.data.prepared.shards import open_shards
from explorer.data.readers.prepared import open_prepared
from explorer.data.splits import read_split
from explorer.errors import Cancelled, DatasetError, ReferenceError3D, SplitError

OPTIONS = ["--reference", "tiny-dense", "--frames", str(FRAMES), "--size", *map(str, SIZE)]


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    samples.patch(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return samples.folder_in(tmp_path)


def settings(reference: str = "tiny-dense", **changes: Any) -> Settings:
    return Settings("tiny", reference, **{"frames": FRAMES, "size": SIZE, **changes})


def fill(folder: Path, out: Path, wanted: Settings | None = None, **options: Any) -> Any:
    return prepare(open_dataset("tiny", folder), out, wanted or settings(), **options)


def hashes(out: Path) -> dict[str, str]:
    return {entry["scene"]: entry["sha256"] for each in open_shards(out) for entry in each.clips}


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


def test_a_stopped_run_keeps_what_is_done(folder: Path, tmp_path: Path) -> None:
    done: list[Step] = []
    with pytest.raises(Cancelled):
        fill(folder, tmp_path / "s", on_step=done.append, should_stop=lambda: len(done) == 2)
    store = open_prepared(tmp_path / "s")
    assert store.names == ("s0", "s1")
    assert len(store.split.sides["train"]) + len(store.split.sides["test"]) == 2
    assert store.manifest.summary["left"] == 4


def test_a_full_disk_ends_the_run_and_spoils_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "store"
    fill(folder, out, limit=1)
    before = hashes(out)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DatasetError, match="No space left on device"):
            fill(folder, out, limit=2)
    assert hashes(out) == before
    open_prepared(out).verify()
    fill(folder, out, limit=2)
    open_prepared(out).verify()
    assert list(hashes(out)) == ["s0", "s1"]


@pytest.fixture
def killed(folder: Path, tmp_path: Path) -> Path:
    """A store whose writer was killed at the third scene."""
    out, flag = tmp_path / "killed", tmp_path / "flag"
    os.mkfifo(flag)
    script = [sys.executable, samples.__file__, "--hold", "s2", str(flag)]
    arguments = ["prepare", "tiny", str(folder), "--out", str(out), *OPTIONS]
    with subprocess.Popen([*script, *arguments], stderr=subprocess.PIPE) as process:
        assert flag.read_text() == "here"  # a pipe: returns when the third scene is in hand
        process.send_signal(signal.SIGKILL)
        process.wait()
    return out


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_killed_run_loses_the_clip_in_hand_and_goes_on(
    killed: Path, folder: Path, tmp_path: Path
) -> None:
    assert list(hashes(killed)) == ["s0", "s1"]
    open_prepared(killed).verify()
    steps: list[Step] = []
    fill(folder, killed, on_step=steps.append)
    assert [step.scene for step in steps] == ["s2", "s3", "s4", "s5"]
    fill(folder, tmp_path / "whole")
    assert hashes(killed) == hashes(tmp_path / "whole")
    assert read_split(killed / "split.json") == read_split(tmp_path / "whole" / "split.json")


def test_what_a_kill_left_half_written_is_cut_off(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    fill(folder, out, limit=2)
    whole = fill(folder, tmp_path / "whole", limit=3)
    half = (tmp_path / "whole" / "shard-00000.tar").read_bytes()[: whole["bytes"] - 700]
    (out / "shard-00000.tar").write_bytes(half)  # killed while the third clip was appended
    (out / ".shard-00000.json.1-aa.tmp").write_text("{")
    assert open_prepared(out).names == ("s0", "s1")
    fill(folder, out, limit=3)
    assert hashes(out) == hashes(tmp_path / "whole")
    data = [(each / "shard-00000.tar").read_bytes() for each in (out, tmp_path / "whole")]
    assert data[0] == data[1]


def test_changed_bytes_are_noticed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    fill(folder, out, limit=1)
    path = out / "shard-00000.tar"
    data = bytearray(path.read_bytes())
    store = open_prepared(out)
    shard, listed = store.clips["s0"]
    offset, _, _ = shard.read_record(listed)["members"]["pictures"][4]
    start = 512 + -(-listed["record_bytes"] // 512) * 512
    data[start + offset + 100] ^= 1
    path.write_bytes(data)
    scene = store.scene("s0")
    scene.pictures([3])
    with pytest.raises(DatasetError, match="has changed since it was written"):
        scene.pictures([4])
    with pytest.raises(DatasetError, match="has changed since it was written"):
        store.verify()
    path.write_bytes(data[:-5000])
    with pytest.raises(DatasetError, match=r"has \d+ bytes and its index speaks of"):
        open_prepared(out).scene("s0")


@pytest.mark.parametrize("name", ["manifest.json", "shard-00000.json"])
def test_a_broken_file_of_the_store_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    fill(folder, tmp_path / "store", limit=1)
    text = (tmp_path / "store" / name).read_text()
    (tmp_path / "store" / name).write_text(text[: len(text) // 2])
    with pytest.raises(DatasetError, match=name):
        fill(folder, tmp_path / "store")


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


def test_a_store_that_holds_nothing_out_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prepare", "tiny", str(folder), *OPTIONS, "--limit", "1", "--device", "cpu"]
    for seed, held_out in ((0, False), (20, True)):
        out = tmp_path / str(seed)
        assert main([*arguments, "--out", str(out), "--split-seed", str(seed)]) == 0
        assert ("nothing is held out" in capsys.readouterr().out) is not held_out


def test_when_every_scene_fails_the_command_says_why(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "store")
    arguments = ["prepare", "tiny", str(folder), "--out", out, "--reference", "tiny-dense"]
    assert main([*arguments, "--frames", "50", "--device", "cpu"]) == 2
    assert "no scene could be prepared; s0: s0 has 11 frames, too few" in capsys.readouterr().err
    assert len(read_manifest(tmp_path / "store").failed) == 6


def test_a_dataset_whose_own_sides_share_places_is_divided_by_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = ("train", "test")
    entries = tuple(SceneEntry(f"s{n}", f"p{n // 2}", sides[n % 2]) for n in (0, 1, 4, 5))
    monkeypatch.setattr(Tiny, "listing", lambda self: entries)
    assert fill(folder, tmp_path / "shared")["split"]["official"] is False
    split = open_prepared(tmp_path / "shared").split
    assert split.side("tiny::s0") == split.side("tiny::s1")
    apart = tuple(SceneEntry(f"s{n}", f"p{n}", sides[n % 2]) for n in (0, 1, 4, 5))
    monkeypatch.setattr(Tiny, "listing", lambda self: apart)
    assert fill(folder, tmp_path / "apart")["split"]["official"] is True
    split = open_prepared(tmp_path / "apart").split
    assert [split.side(f"tiny::s{n}") for n in (0, 1, 4, 5)] == ["train", "test", "train", "test"]
    assert [entry.split for entry in open_prepared(tmp_path / "apart").entries] == [
        "train", "test", "train", "test",
    ]  # fmt: skip


def test_sides_that_share_places_are_noticed_before_all_scenes_are_prepared(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = tuple(SceneEntry(f"s{n}", "p", ("train", "test")[n % 2]) for n in (0, 1, 4))
    monkeypatch.setattr(Tiny, "listing", lambda self: entries)
    assert fill(folder, tmp_path / "store", limit=1)["split"]["official"] is False
    assert fill(folder, tmp_path / "store")["prepared"] == 3
    monkeypatch.setattr(Tiny, "listing", lambda self: entries[:1])  # only a part was downloaded
    fill(folder, tmp_path / "part")
    monkeypatch.setattr(Tiny, "listing", lambda self: entries)
    with pytest.raises(SplitError, match="part cannot take more scenes: the official split has"):
        fill(folder, tmp_path / "part")
    assert fill(folder, tmp_path / "part", by_place=True)["prepared"] == 3


def test_the_datasets_own_sides_can_be_left_alone_from_the_start_or_later(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = tuple(SceneEntry(f"s{n}", f"p{n}", "test") for n in (0, 1, 4, 5))
    monkeypatch.setattr(Tiny, "listing", lambda self: entries)
    assert fill(folder, tmp_path / "own")["split"]["sides"] == {"test": 4, "train": 0}
    before = hashes(tmp_path / "own")
    divided = fill(folder, tmp_path / "store", by_place=True)["split"]
    assert divided["sides"]["train"] > 0
    arguments = ["prepare", "tiny", str(folder), "--out", str(tmp_path / "own"), *OPTIONS]
    assert main([*arguments, "--device", "cpu", "--by-place"]) == 0
    assert (
        open_prepared(tmp_path / "own").split.reference
        == open_prepared(tmp_path / "store").split.reference
    )
    assert fill(folder, tmp_path / "own")["split"] == divided  # as long as nobody says otherwise
    assert hashes(tmp_path / "own") == before


def test_another_seed_divides_a_store_anew_and_prepares_nothing_again(
    folder: Path, tmp_path: Path
) -> None:
    out, steps = tmp_path / "store", []
    fill(folder, out)
    before, split = hashes(out), read_split(out / "split.json")
    assert fill(folder, out, split_seed=20, on_step=steps.append)["prepared"] == 5
    assert steps == []
    assert hashes(out) == before
    divided = read_split(out / "split.json")
    assert divided.seed == 20
    assert divided.sides != split.sides
    assert fill(folder, out)["split"]["sha256"] == divided.sha256
    (out / "split.json").unlink()
    assert open_prepared(out).split == divided


def test_clips_of_a_killed_run_are_on_a_side(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    fill(folder, out, limit=2)
    before = (out / "split.json").read_bytes()
    fill(folder, out)
    whole = read_split(out / "split.json")
    (out / "split.json").write_bytes(before)  # killed before it was written again
    assert open_prepared(out).split == whole
    (out / "split.json").unlink()  # killed in the first run
    assert open_prepared(out).split == whole
    assert sum(len(open_prepared(out).side(side)) for side in whole.sides) == 5


def test_clips_are_numbered_apart_after_a_shard_was_removed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    fill(folder, out, limit=3, shard_bytes=1)
    (out / "shard-00000.tar").unlink()
    (out / "shard-00000.json").unlink()
    fill(folder, out)
    store = open_prepared(out)
    store.verify()
    numbers = [entry["number"] for _, entry in store.clips.values()]
    assert len(set(numbers)) == len(numbers) == 5


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
