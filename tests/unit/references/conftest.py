"""Weights of a tiny VGGT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from vggt_samples import write

from explorer.references import _room


@pytest.fixture(scope="module")
def state(golden: Path) -> dict[str, torch.Tensor]:
    found = load_file(golden / "vggt-tiny.safetensors")
    return {
        name.removeprefix("weight."): value.float().contiguous()
        for name, value in found.items()
        if name.startswith("weight.")
    }


@pytest.fixture
def weights(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(_room, "_kept", [])
    return write(tmp_path / "vggt", state)
