"""Where the shipped clips, models and probes are on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from explorer.errors import EmergeError

ENVIRONMENT_VARIABLE = "EMERGE3D_ASSETS"
PACKAGED_NAME = "_shipped"
"""The folder inside the package that `setup.py` copies `assets/` to when it builds a wheel."""


def assets_root() -> Path:
    """The folder that holds `clips/`, `models/` and `probes/`.

    The first of these that applies: the folder that the environment variable `EMERGE3D_ASSETS`
    names; the copy inside an installed wheel; `assets/` beside this package in a checkout.

    Returns:
        An absolute path. In a checkout whose assets were removed it may not exist.

    Raises:
        EmergeError: `EMERGE3D_ASSETS` is set and names no folder.
    """
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        root = Path(chosen).expanduser()
        if not root.is_dir():
            raise EmergeError(
                f"{ENVIRONMENT_VARIABLE} is set to {chosen!r}, which is not a folder. "
                "Unset it to use the shipped assets, or give it the folder that holds clips/, "
                "models/ and probes/."
            )
        return root.resolve()
    package = Path(__file__).resolve().parent
    packaged = package / PACKAGED_NAME
    # A checkout never has the packaged copy, an installed wheel always has.
    return packaged if packaged.is_dir() else package.parent / "assets"
