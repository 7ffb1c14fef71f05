"""The built wheel, installed where nothing of the checkout can be seen."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from urllib.request import urlopen

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[2]
NOT_SOURCE = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "cache", "dist", "runs", "tests"
)
UPLOAD_LIMIT_BYTES = 100 * 2**20  # what PyPI takes


@dataclass(frozen=True)
class Installation:
    """An environment that has the wheel, and a folder away from it to start commands in."""

    wheel: Path
    environment: Path
    elsewhere: Path

    @property
    def site(self) -> Path:
        return Path(self.python("import sysconfig; print(sysconfig.get_path('purelib'))").strip())

    @property
    def surroundings(self) -> dict[str, str]:
        """The variables that commands get."""
        kept = ("PATH", "LANG", "LC_ALL", "OMP_NUM_THREADS", "SYSTEMROOT", "TMPDIR")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        return {**environment, "HOME": str(self.elsewhere)}

    def run(self, command: Sequence[str | Path]) -> str:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.elsewhere,
            env=self.surroundings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def python(self, code: str) -> str:
        return self.run([self.environment / "bin" / "python", "-c", code])

    def emerge3d(self, *words: str | Path) -> str:
        return self.run([self.environment / "bin" / "emerge3d", *words])


def pip(*words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel built from a copy of the sources, alone in a new environment.

    The environment sees this one's packages as plain files on its path (their own .pth files are
    not read), so the dependencies are there without a download and the checkout is not.
    """
    root = tmp_path_factory.mktemp("wheel")
    source, environment, elsewhere = root / "source", root / "environment", root / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(REPOSITORY, source, ignore=NOT_SOURCE)
    offline = ("--no-deps", "--no-index")
    pip("wheel", *offline, "--no-build-isolation", "--wheel-dir", root, source)
    shutil.rmtree(source)
    (wheel,) = root.glob("emerge3d-*.whl")

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    pip("--python", environment / "bin" / "python", "install", *offline, wheel)
    installed = Installation(wheel, environment, elsewhere)
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (installed.site / "dependencies.pth").write_text("\n".join(sorted(dependencies)) + "\n")
    return installed


def digests(root: Path) -> dict[str, str]:
    """sha256 by relative path of every file under `root` that is meant to be shipped."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and "__pycache__" not in path.parts
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }


def test_both_packages_come_from_the_wheel_and_not_from_the_checkout(
    installation: Installation,
) -> None:
    found = installation.python(
        "import explorer, importlib.util as u;"
        "print(explorer.__file__); print(u.find_spec('app').origin)"
    ).split()
    assert [Path(path).parents[1] for path in found] == [installation.site] * 2


def test_every_source_file_and_data_file_of_both_packages_is_in_the_wheel(
    installation: Installation,
) -> None:
    for package in ("explorer", "app"):
        installed = digests(installation.site / package)
        missing = digests(REPOSITORY / package).items() - installed.items()
        assert not missing


def test_the_installed_assets_are_the_repositorys_bit_for_bit(installation: Installation) -> None:
    found = installation.python("from explorer.assets import assets_root; print(assets_root())")
    root = Path(found.strip())
    assert root.is_relative_to(installation.site)
    shipped = digests(root)
    assets = digests(REPOSITORY / "assets")
    assert shipped == assets
    assert "clips/index.json" in shipped
    for part in ("vae", "transformer"):
        assert any(name.startswith(f"models/toy-wan/{part}/") for name in shipped)


def test_a_look_from_another_folder_works_and_writes_nothing_into_the_installation(
    installation: Installation,
) -> None:
    package = installation.site / "explorer"
    before = digests(package)
    clip, *_ = sorted((package / "_shipped" / "clips").glob("*.mp4"))
    cell = ("--backbone", "latent", "--layer", "0", "--sigma", "0.1")
    summary = json.loads(installation.emerge3d("look", clip, *cell, "--json"))
    assert summary["provenance"]["probe"]["trained"] is True
    assert digests(package) == before


def test_the_installed_command_lists_the_shipped_backbones(installation: Installation) -> None:
    listed = json.loads(installation.emerge3d("backbones", "--json"))
    assert "toy-wan" in {backbone["id"] for backbone in listed["backbones"]}


def test_the_installed_app_serves_its_page_from_another_folder(
    installation: Installation,
) -> None:
    with subprocess.Popen(
        [installation.environment / "bin" / "emerge3d", "app", "--port", "0"],
        cwd=installation.elsewhere,
        env=installation.surroundings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as app:
        try:
            assert app.stdout is not None
            said = app.stdout.readline()  # empty where it ended instead
            assert said.startswith("Emerge3D is at http://127.0.0.1:")
            with urlopen(said.split()[-1], timeout=60) as answer:
                assert answer.status == 200
                page = answer.read().decode()
        finally:
            app.terminate()
    assert "Emerge3D" in page
    assert "room orbit 01" in page, "a shipped clip is chosen"


def test_the_wheel_asks_for_what_the_project_does(installation: Installation) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(installation.wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        told = Parser().parsestr(archive.read(name).decode())
    asked = [Requirement(each) for each in told.get_all("Requires-Dist", [])]
    always = {str(each) for each in asked if each.marker is None}
    assert always == {str(Requirement(each)) for each in project["dependencies"]}
    assert told["Requires-Python"] == project["requires-python"]
    assert set(told.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])


def test_the_readme_says_how_large_the_wheel_is(installation: Installation) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    (printed,) = re.findall(r"makes the wheel \((\d+) MB\)", readme)
    assert installation.wheel.stat().st_size / 1e6 == pytest.approx(int(printed), abs=1)


def test_the_wheel_holds_the_licence_no_tests_and_fits_a_package_index(
    installation: Installation,
) -> None:
    assert installation.wheel.stat().st_size < UPLOAD_LIMIT_BYTES
    with zipfile.ZipFile(installation.wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"app", "explorer"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
