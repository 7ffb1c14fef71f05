"""Attention distance, against a block of diffusers' own transformer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from torch.nn import functional

from explorer.backbones._wan import block_outputs
from explorer.correspondence import token_centers
from explorer.proxies import attention_reach

GRID = (3, 4, 5)
SIZE = (32, 40)


def test_attention_that_sees_nothing_looks_everywhere() -> None:
    zeros = np.zeros((*GRID, 12), dtype=np.float32)
    found = attention_reach(zeros, zeros, heads=1, size=SIZE)
    centers = token_centers(GRID[1:], SIZE)
    between = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
    assert found.distance_px == pytest.approx(between.mean(), rel=1e-5)
    assert found.own_slot_share == pytest.approx(1 / 3, rel=1e-5)


def test_heads_must_divide_the_channels() -> None:
    zeros = np.zeros((*GRID, 12), dtype=np.float32)
    with pytest.raises(ValueError, match="do not divide"):
        attention_reach(zeros, zeros, heads=5, size=SIZE)


def test_it_is_the_attention_of_the_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model: Any = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=16, in_channels=4,
        out_channels=4, text_dim=8, freq_dim=16, ffn_dim=16, num_layers=1, rope_max_seq_len=32,
    ).eval()  # fmt: skip
    with torch.no_grad():
        model.blocks[0].attn1.norm_q.weight *= 3.0
        model.blocks[0].attn1.norm_k.weight *= 3.0
    latents = torch.randn(1, 4, GRID[0], 2 * GRID[1], 2 * GRID[2])
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = functional.scaled_dot_product_attention

    def watched(query: torch.Tensor, key: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        seen.append((query.clone(), key.clone()))
        return original(query, key, *rest, **named)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    taps = {}
    with torch.no_grad():
        for tap in ("query", "key"):
            tokens = block_outputs(model, latents, 300.0, layers=[0], tap=tap)[0]
            taps[tap] = tokens[0].float().reshape(*GRID, -1).numpy()
        model(latents, torch.tensor([300.0]), torch.zeros(1, 1, 8))
    found = attention_reach(taps["query"], taps["key"], heads=2, size=SIZE)

    query, key = next(pair for pair in seen if pair[0].shape[-2] == np.prod(GRID))
    weight = (query @ key.transpose(-1, -2) / 4.0).softmax(-1)[0].numpy()
    centers = np.tile(token_centers(GRID[1:], SIZE), (GRID[0], 1))
    between = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
    slot = np.repeat(np.arange(GRID[0]), GRID[1] * GRID[2])
    distance = (weight * between).sum(-1).mean()
    own = (weight * (slot[:, None] == slot[None])).sum(-1).mean()
    assert abs(found.distance_px - between.mean()) > 0.1, "the test would pass without rotation"
    assert found.distance_px == pytest.approx(distance, rel=1e-4)
    assert found.own_slot_share == pytest.approx(own, rel=1e-4)
