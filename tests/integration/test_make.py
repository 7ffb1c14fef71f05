"""What `make` would do, and what the check of a clean clone calls. Nothing is installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MAKE = shutil.which("make") or "make"
INSTALL = "-m pip install --no-input --no-compile --disable-pip-version-check -c constraints.txt"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What make reads of a clone that nobody has used."""
    folder = tmp_path / "checkout"
    (folder / ".ci").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "setup.py", "constraints.txt", ".ci/run"):
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for stand-ins of programs; empty."""
    folder = tmp_path / "programs"
    folder.mkdir()
    return folder


def stand_in(programs: Path, name: str, script: str) -> None:
    (programs / name).write_text(f"#!/bin/sh\n{script}\n")
    (programs / name).chmod(0o755)


def run(*command: str, folder: Path, path: str = os.defpath, **more: str) -> tuple[int, str]:
    """(status, all that was said), without what a make around this one has set."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": path, **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def planned(folder: Path, target: str, *words: str) -> str:
    """What make would run for a target."""
    status, said = run(MAKE, "--dry-run", target, *words, folder=folder)
    assert status == 0, said
    return said


def in_order(text: str, *parts: str) -> None:
    places = [text.find(part) for part in parts]
    assert -1 not in places, parts[places.index(-1)]
    assert places == sorted(places)


def used(folder: Path, *stamps: str) -> None:
    """As after an installation."""
    (folder / ".venv/bin").mkdir(parents=True)
    for name in ("bin/python", *stamps):
        (folder / ".venv" / name).touch()


def test_the_first_start_makes_an_environment_with_the_pinned_packages(checkout: Path) -> None:
    in_order(
        planned(checkout, "app", "ARGS=--port 7861"),
        '-m venv ".venv"',
        f".venv/bin/python {INSTALL} --no-build-isolation -e .\n",
        "exec .venv/bin/python -m app --port 7861\n",
    )


def test_the_second_start_installs_nothing_until_a_pin_changes(checkout: Path) -> None:
    used(checkout, ".installed-app")
    assert planned(checkout, "app").split() == ["exec", ".venv/bin/python", "-m", "app"]
    later = time.time() + 10
    os.utime(checkout / "constraints.txt", (later, later))
    assert INSTALL in planned(checkout, "app")


def test_the_tests_need_the_test_tools_a_browser_and_run_ruff_mypy_and_everything(
    checkout: Path,
) -> None:
    said = planned(checkout, "test")
    in_order(
        said,
        '-m venv ".venv"',
        f".venv/bin/python {INSTALL} --no-build-isolation -e '.[test]'\n",
        "ruff check .\n",
        "mypy",
        "pytest -n 2 --dist loadfile --ignore tests/browser\n",
        "pytest tests/browser\n",
    )
    assert "apt-get install -q -y --no-install-recommends chromium" in said
    used(checkout, ".installed-app", ".installed-test")
    again = planned(checkout, "test", "ARGS=-m 'not browser'")
    in_order(again, "ruff check .", "mypy", "exec .venv/bin/python -m pytest -m 'not browser'\n")
    assert "pip" not in again
    assert "chromium" not in again


def test_without_a_browser_and_without_root_make_says_what_to_install(
    checkout: Path, programs: Path
) -> None:
    stand_in(programs, "id", "echo 1000")
    stand_in(programs, "apt-get", "echo $0 must not run; exit 1")
    status, said = run(MAKE, "browser", folder=checkout, path=str(programs))
    assert status != 0
    assert "must not run" not in said
    assert said.startswith("The browser tests need Chromium. Debian and Ubuntu: sudo apt install")
    assert "set CHROMIUM=/path/to/it" in said
    stand_in(programs, "mine", "")
    mine = str(programs / "mine")
    assert run(MAKE, "browser", folder=checkout, path=str(programs), CHROMIUM=mine) == (0, "")


def test_root_on_debian_gets_the_browser_that_is_missing(checkout: Path, programs: Path) -> None:
    stand_in(programs, "id", "echo 0")
    stand_in(programs, "apt-get", 'echo "apt-get $*"')
    status, said = run(MAKE, "browser", folder=checkout, path=str(programs))
    assert status == 0
    in_order(said, "apt-get update", "apt-get install", "chromium")
    stand_in(programs, "chromium", "")
    assert run(MAKE, "browser", folder=checkout, path=str(programs)) == (0, "")


def test_the_check_of_a_clean_clone_is_make_test_and_ends_as_it_does(
    checkout: Path, programs: Path
) -> None:
    path = f"{programs}{os.pathsep}{os.defpath}"
    stand_in(programs, "make", 'echo "make $*"; echo "== 9 passed in 8.7s =="')
    status, said = run(".ci/run", folder=checkout, path=path)
    assert status == 0
    assert said.split("\n")[:2] == ["make --no-print-directory test", "== 9 passed in 8.7s =="]
    stand_in(programs, "make", 'echo "== 1 failed in 8.7s =="; echo "make: Error 1"; exit 2')
    status, said = run(".ci/run", folder=checkout, path=path)
    assert status == 2
    assert said.endswith("make: Error 1\n== 1 failed in 8.7s ==\n")
