"""A toy model folder of the true layout and a fiftieth of the size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from small_models import small_card

from explorer.backbones.base import BackboneCard
from explorer.clip import Clip, clip_from_frames
from explorer.toy.config import TRANSFORMER_CONFIG, VAE_CONFIG

if TYPE_CHECKING:
    from explorer.backbones._wan import WanBackbone

TINY_VAE: dict[str, Any] = {
    **VAE_CONFIG,
    "base_dim": 4,
    "z_dim": 4,
    "latents_mean": [0.1, -0.2, 0.3, 0.0],
    "latents_std": [1.0, 0.5, 2.0, 1.5],
}
TINY_TRANSFORMER: dict[str, Any] = {
    **TRANSFORMER_CONFIG,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "ffn_dim": 48,
    "num_layers": 4,
}


@pytest.fixture(scope="session")
def tiny_card() -> BackboneCard:
    return small_card("tiny", kind="video diffusion", layers=4, width=24, input_size=(32, 48))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from explorer.toy.untrained import write_untrained

    return write_untrained(
        tmp_path_factory.mktemp("tiny"),
        seed=3,
        vae_config=TINY_VAE,
        transformer_config=TINY_TRANSFORMER,
    )


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Clip]:
    """`make_clip(count, size, seed=0)`: smooth moving pictures, different for each seed."""

    def make(count: int, size: tuple[int, int] = (32, 48), *, seed: int = 0) -> Clip:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
        time = np.arange(count)[:, None, None]
        waves = [
            np.sin(rng.uniform(2, 9) * x + rng.uniform(2, 9) * y + rng.uniform(0.1, 0.5) * time)
            for _ in range(3)
        ]
        frames = np.stack(waves, axis=-1) * 100 + 128 + rng.normal(0, 8, (count, *size, 3))
        return clip_from_frames(frames.clip(0, 255).astype(np.uint8), name=f"waves {seed}")

    return make


@pytest.fixture(scope="session")
def tiny(tiny_card: BackboneCard, tiny_folder: Path) -> WanBackbone:
    """The tiny model, loaded from its files."""
    from explorer.backbones import _wan, _wan_files

    return _wan.WanBackbone(
        tiny_card,
        _wan_files.load_vae(tiny_folder / "vae", device="cpu"),
        _wan_files.load_transformer(tiny_folder / "transformer", device="cpu", dtype="float32"),
        weights_hash=_wan_files.files_hash(tiny_folder / "vae", tiny_folder / "transformer"),
        encoder_hash=_wan_files.files_hash(tiny_folder / "vae"),
        trained=False,
    )
