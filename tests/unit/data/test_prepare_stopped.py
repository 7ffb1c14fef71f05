"""What a store holds after a run was stopped or killed, or bytes were changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import prepared_samples as samples
import pytest
from filling import OPTIONS, fill, hashes

from explorer.data.prepared.make import Step
from explorer.data.readers.prepared import open_prepared
from explorer.data.splits import read_split
from explorer.errors import Cancelled, DatasetError


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
