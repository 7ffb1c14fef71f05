"""Model folders in diffusers' layout, as files: what is there, and its hash. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from explorer.backbones.base import hash_files
from explorer.errors import BackboneError


def model_files(folder: Path) -> list[Path]:
    """Configuration and weights of one model folder.

    Raises:
        BackboneError: one of them is missing.
    """
    weights = sorted(folder.glob("*.safetensors"))
    config = folder / "config.json"
    if not weights or not config.is_file():
        missing = "*.safetensors" if config.is_file() else "config.json"
        raise BackboneError(
            f"the weights are missing: there is no {missing} in {folder}. Reinstall the package, "
            "restore assets/models from the repository, or set EMERGE3D_ASSETS to the folder that "
            "holds models/"
        )
    return [config, *weights]


def read_config(path: Path) -> dict[str, Any]:
    """The configuration in a JSON file."""
    config: dict[str, Any] = json.loads(path.read_text())
    return config


def transformer_config(folder: Path) -> dict[str, Any]:
    """The configuration alone.

    Raises:
        BackboneError: it is missing.
    """
    return read_config(model_files(folder)[0])


def files_hash(*folders: Path) -> str:
    """sha256 over configurations and weights of model folders.

    Raises:
        BackboneError: a file is missing.
    """
    return hash_files([path for folder in folders for path in model_files(folder)])
