from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from explorer.backbones import _untrained
from explorer.toy.config import TRANSFORMER_CONFIG
from explorer.toy.untrained import write_untrained

CONFIG: dict[str, Any] = {
    **TRANSFORMER_CONFIG,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "ffn_dim": 48,
    "num_layers": 2,
}


def test_the_numbers_are_the_same_on_every_machine() -> None:
    values = _untrained.uniform("blocks.0.attn1.to_q.weight", (4, 5), seed=0)
    digest = hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()
    assert digest.startswith("8033f30a24f6ea86449422bb")
    assert values.dtype == np.float32


def test_every_parameter_and_seed_has_its_own_numbers() -> None:
    draws = [_untrained.uniform(name, (6,), seed=seed).tolist() for name in "ab" for seed in (0, 1)]
    assert len({tuple(draw) for draw in draws}) == 4


def test_regeneration_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = _untrained.untrained_transformer(CONFIG, seed=0).state_dict()
    torch.manual_seed(2)
    again = _untrained.untrained_transformer(CONFIG, seed=0).state_dict()
    other = _untrained.untrained_transformer(CONFIG, seed=1).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["proj_out.weight"], other["proj_out.weight"])


def test_the_spread_is_that_of_the_default_initialiser() -> None:
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    default = WanTransformer3DModel(**CONFIG).state_dict()
    ours = _untrained.untrained_transformer(CONFIG, seed=0).state_dict()
    for name, value in default.items():
        if value.numel() > 500:
            assert float(ours[name].std()) == pytest.approx(float(value.std()), rel=0.15), name
            assert abs(float(ours[name].mean())) < 0.15 * float(value.std()), name
        elif "norm" in name:
            assert torch.equal(ours[name], value), name


def test_an_untrained_folder_says_so_and_holds_float16(tiny_folder: Path) -> None:
    card = json.loads((tiny_folder / "card.json").read_text())
    assert card["trained"] is False
    assert card["steps"] == 0
    assert {path.name for path in tiny_folder.iterdir()} == {
        "card.json",
        "scheduler",
        "transformer",
        "vae",
    }


def test_writing_an_untrained_folder_leaves_the_global_random_state(tmp_path: Path) -> None:
    small = {"base_dim": 4, "z_dim": 4, "dim_mult": [1], "temperal_downsample": []}
    before = torch.random.get_rng_state()
    write_untrained(tmp_path, vae_config=small, transformer_config=CONFIG)
    assert torch.equal(torch.random.get_rng_state(), before)
