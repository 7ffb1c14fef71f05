"""The training of probes with everything that costs time made small: clips, maps and networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from explorer.probe.model import ProbeConfig
from explorer.toy import probe_pool, train_group
from explorer.toy.config import TRANSFORMER_CONFIG
from explorer.toy.probe_pool import Pool

GRID = (6, 8)
SIZE = (48, 64)
MAPS = (24, 32)


def made_up_pool(renderer: Any, vae: Any, seeds: list[int], **_: Any) -> Pool:
    """What `make_pool` gives, without rendering or encoding; the first seed says which clips."""
    count, generator = len(seeds), torch.Generator().manual_seed(seeds[0])
    pose = torch.eye(4)[:3].expand(count, 5, 3, 4).clone()
    pose[:, :, 0, 3] = torch.arange(5) * 0.1
    lens = torch.tensor([[25.0, 0.0, 16.0], [0.0, 25.0, 12.0], [0.0, 0.0, 1.0]])
    tokens = (count, TRANSFORMER_CONFIG["in_channels"], 5, 2 * GRID[0], 2 * GRID[1])
    shape = (count, 5, *SIZE, 3)
    return Pool(
        latents=torch.randn(tokens, generator=generator).bfloat16(),
        frames=torch.randint(0, 255, shape, dtype=torch.uint8, generator=generator),
        depth=torch.rand(count, 5, *MAPS, generator=generator) + 1.0,
        cam_from_world=pose,
        intrinsics=lens.expand(count, 3, 3).clone(),
    )


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes of a thousand parameters on 48 tokens a frame, for the modules that train them."""
    for module in (probe_pool, train_group):
        monkeypatch.setattr(module, "GRID", GRID)
        monkeypatch.setattr(module, "MAPS", MAPS)
    monkeypatch.setattr(probe_pool, "HEIGHT", SIZE[0])
    monkeypatch.setattr(probe_pool, "WIDTH", SIZE[1])
    compact = ProbeConfig.compact

    def small(channels: int) -> ProbeConfig:
        maps = {"dpt_dim": 8, "dpt_stage_channels": (8, 8, 8, 8), "dpt_hidden": 4}
        return replace(compact(channels), dim=16, heads=1, camera_dim=16, camera_depth=1, **maps)

    monkeypatch.setattr(ProbeConfig, "compact", small)
