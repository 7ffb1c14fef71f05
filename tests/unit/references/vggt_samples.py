"""A tiny VGGT in a folder, and a clip for it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_models import TINY_VGGT

from explorer.clip import Clip, clip_from_frames
from explorer.references import vggt


def write(
    folder: Path, state: dict[str, torch.Tensor], *, name: str = "model.safetensors", **card: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".safetensors"):
        save_file(state, folder / name)
    else:
        torch.save(state, folder / name)
    (folder / "config.json").write_text(json.dumps(asdict(TINY_VGGT)))
    if card:
        (folder / "card.json").write_text(json.dumps(card))
    return folder


def clip(count: int = 5, size: tuple[int, int] = (60, 100)) -> Clip:
    rng = np.random.default_rng(0)
    return clip_from_frames(rng.integers(0, 256, (count, *size, 3), dtype=np.uint8), name="noise")


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of 70 columns: the tiny network needs no 518."""
    monkeypatch.setattr(vggt, "SIDE", 70)
