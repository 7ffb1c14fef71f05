"""Puts a copy of `assets/` inside the wheel; everything else is declared in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.errors import FileError

ASSETS = Path(__file__).resolve().parent / "assets"


class BuildWithAssets(build_py):
    """`build_py` that adds `assets/` as `explorer/_shipped`, where `explorer.assets` looks.

    An editable installation gets no copy: it uses the checkout's own folder.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        if not ASSETS.is_dir():
            raise FileError(f"{ASSETS} is missing: a wheel without clips and models cannot work.")
        shipped = Path(self.build_lib) / "explorer" / "_shipped"
        # What an earlier build left behind must not travel along.
        shutil.rmtree(shipped, ignore_errors=True)
        # Weights that are still being trained are for the checkout alone.
        ignore = shutil.ignore_patterns(".*", "__pycache__")
        shutil.copytree(ASSETS, shipped, ignore=ignore)


setup(cmdclass={"build_py": BuildWithAssets})
