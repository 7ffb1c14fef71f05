"""How the scenes of a store are divided into sides."""

from __future__ import annotations

from pathlib import Path

import pytest
from filling import OPTIONS, fill, hashes
from prepared_samples import Tiny

from explorer.cli import main
from explorer.data.dataset import SceneEntry
from explorer.data.readers.prepared import open_prepared
from explorer.data.splits import read_split
from explorer.errors import SplitError


def test_a_store_that_holds_nothing_out_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prepare", "tiny", str(folder), *OPTIONS, "--limit", "1", "--device", "cpu"]
    for seed, held_out in ((0, False), (20, True)):
        out = tmp_path / str(seed)
        assert main([*arguments, "--out", str(out), "--split-seed", str(seed)]) == 0
        assert ("nothing is held out" in capsys.readouterr().out) is not held_out


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
