"""Prepared scenes, and backbones that see them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import prepared_samples as samples
import pytest
import torch
from prepared_samples import FRAMES, SIZE
from still_backbone import CARD, CHANNELS, GRID, Still

from explorer.backbones import loaded, registry
from explorer.data.dataset import open_dataset
from explorer.data.prepared.make import prepare
from explorer.data.prepared.manifest import Settings
from explorer.data.readers.prepared import Prepared, open_prepared
from explorer.probe.train import PROBES


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> Still:
    registry.cards()
    backbone = Still(CARD)
    entry = registry.Entry(CARD, lambda card, target: backbone, None, None, None, None)
    monkeypatch.setitem(registry._entries, "still", entry)
    monkeypatch.setattr(loaded, "models", {})
    small = replace(
        PROBES["compact"][0](CHANNELS), dim=16, heads=2, dpt_dim=8, dpt_hidden=8, camera_dim=16,
        dpt_stage_channels=(8, 8, 8, 8), camera_depth=1, camera_heads=2, grid=GRID,
        output_size=(8, 12),
    )  # fmt: skip
    monkeypatch.setitem(
        PROBES, "compact", (lambda channels: replace(small, in_channels=channels),
                            PROBES["compact"][1]),
    )  # fmt: skip
    return backbone


@pytest.fixture
def store(still: Still, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Prepared:
    samples.patch(monkeypatch)
    folder = samples.folder_in(tmp_path)
    settings = Settings("tiny", "tiny-dense", frames=FRAMES, size=SIZE)
    prepare(open_dataset("tiny", folder), tmp_path / "store", settings, split_seed=20)
    return open_prepared(tmp_path / "store")


@pytest.fixture
def coarse(still: Still, monkeypatch: pytest.MonkeyPatch) -> Still:
    """Sees three frames of a scene, each a slot."""
    card = replace(CARD, id="coarse", max_frames=3, frame_step=1)
    backbone = Still(card)
    entry = registry.Entry(card, lambda card, target: backbone, None, None, None, None)
    monkeypatch.setitem(registry._entries, "coarse", entry)
    return backbone


@pytest.fixture
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
