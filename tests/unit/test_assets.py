from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import explorer.assets
from explorer.assets import ENVIRONMENT_VARIABLE, PACKAGED_NAME, assets_root
from explorer.errors import EmergeError


@pytest.fixture(autouse=True)
def no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


@pytest.fixture
def moved_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the module's folder elsewhere, as an installation would have it."""
    package = tmp_path / "site" / "explorer"
    package.mkdir(parents=True)
    shutil.copy(explorer.assets.__file__, package)
    monkeypatch.setattr(explorer.assets, "__file__", str(package / "assets.py"))
    return package


def test_a_checkout_uses_the_assets_folder_beside_the_package() -> None:
    repository = Path(explorer.__path__[0]).resolve().parent
    assert assets_root() == repository / "assets"


def test_an_installed_wheel_uses_its_own_copy(moved_package: Path) -> None:
    (moved_package / PACKAGED_NAME).mkdir()
    (moved_package.parent / "assets").mkdir()
    assert assets_root() == moved_package / PACKAGED_NAME


def test_the_environment_variable_wins_over_every_copy(
    moved_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (moved_package / PACKAGED_NAME).mkdir()
    mine = tmp_path / "mine"
    mine.mkdir()
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(mine))
    assert assets_root() == mine


def test_a_relative_override_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "mine")
    assert assets_root() == tmp_path / "mine"


def test_an_override_that_is_no_folder_is_named_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(EmergeError, match=r"EMERGE3D_ASSETS is set to .*gone.*not a folder"):
        assets_root()
