from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from explorer._atomic import SUFFIX, begin, discard, finish, replace_file, replacing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "values.json"
    file.write_bytes(b"old")
    return file


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def only(path: Path, content: bytes) -> bool:
    return list(path.parent.iterdir()) == [path] and path.read_bytes() == content


def test_new_content_takes_the_place_of_the_old(path: Path) -> None:
    replace_file(path, b"new")
    assert only(path, b"new")


def test_until_the_block_ends_the_old_file_stays(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert temporary.parent == path.parent
        assert temporary.suffix == SUFFIX
    assert only(path, b"new")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_an_exception_in_the_block_leaves_the_old_file_alone(
    path: Path, error: type[BaseException]
) -> None:
    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert only(path, b"old")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="no space left"):
        replace_file(path, b"new")
    assert only(path, b"old")


def test_content_is_on_the_disk_before_the_name_and_the_name_after(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def noted_replace(*names: Any) -> None:
        steps.append("rename")
        replace(*names)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    replace_file(path, b"new")
    assert steps == ["file", "rename", "folder"]


def test_a_folder_that_cannot_be_synced_is_no_failure(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def only_files(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError("not on this drive")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", only_files)
    replace_file(path, b"new")
    assert only(path, b"new")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o000, 0o644)])
def test_others_may_read_where_the_umask_lets_them(
    tmp_path: Path, umask: Callable[[int], int], mask: int, mode: int
) -> None:
    umask(mask)
    replace_file(tmp_path / "new", b"x")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode


def test_a_writer_that_makes_the_file_anew_does_not_change_who_may_read_it(
    path: Path, umask: Callable[[int], int]
) -> None:
    umask(0o022)
    with replacing(path) as temporary:
        temporary.unlink()
        temporary.touch(mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_name_of_the_greatest_length_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)
    replace_file(path, b"new")
    assert only(path, b"new")


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "absent" / "file", b"new")


def test_two_writers_of_one_file_do_not_meet(path: Path) -> None:
    first, second = begin(path), begin(path)
    first.write_bytes(b"first")
    second.write_bytes(b"second")
    finish(second, path)
    assert path.read_bytes() == b"second"
    discard(first)
    discard(first)
    assert only(path, b"second")


def test_it_needs_the_standard_library_alone() -> None:
    code = (
        "import sys, explorer._atomic\n"
        "print(sorted({'numpy', 'torch', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.strip() == "[]"
