"""Sampled videos and their contact sheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor, nn

from explorer.toy import latents, sample
from explorer.toy.config import FRAMES, TRANSFORMER_CONFIG, VAE_CONFIG
from explorer.toy.model_card import model_card
from explorer.toy.png import png, sheet
from explorer.toy.shards import save_shards


def test_a_png_is_read_back_pixel_for_pixel() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
    found = cv2.imdecode(np.frombuffer(png(picture), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(found[..., ::-1], picture)


def test_a_sheet_has_a_row_for_each_video_and_a_column_for_each_frame() -> None:
    videos = np.zeros((2, 5, 4, 6, 3), dtype=np.uint8)
    videos[1, 4] = 200
    found = sheet(videos, [0, 4], shrink=2, gap=1)
    assert found.shape == (2 * 2 + 1, 2 * 3 + 1, 3)
    assert (found[3:, 4:] == 200).all()
    assert (found[:2, :3] == 0).all()
    assert (found[2] == 255).all()


def test_the_sampler_arrives_where_the_velocity_points() -> None:
    wanted = torch.randn(2, 8, 1, 3, 4, generator=torch.Generator().manual_seed(5))

    class Knows(nn.Module):
        """The velocity of a straight path to the wanted latents."""

        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Parameter(torch.zeros(1))

        def forward(self, noisy: Tensor, timestep: Tensor, *_: Any, **__: Any) -> Any:
            return ((noisy - wanted) / (timestep / 1000.0).view(-1, 1, 1, 1, 1),)

    found = sample.sample_latents(Knows(), tuple(wanted.shape), steps=8, seed=0)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_a_run_is_sampled_onto_a_sheet_for_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {**VAE_CONFIG, "base_dim": 4}
    monkeypatch.setattr(latents, "VAE_CONFIG", small)
    monkeypatch.setattr(sample, "HEIGHT", 32)
    monkeypatch.setattr(sample, "WIDTH", 48)
    clips = torch.randint(0, 255, (1, FRAMES, 32, 48, 3), dtype=torch.uint8)
    monkeypatch.setattr(sample, "image_pool", lambda *_, **__: clips)
    torch.manual_seed(0)
    vae: Any = AutoencoderKLWan(**small)
    statistics = {"latents_mean": [0.0] * 16, "latents_std": [1.0] * 16}
    save_shards(vae.state_dict(), tmp_path / "vae", "vae", statistics)
    config = {
        **TRANSFORMER_CONFIG, "num_attention_heads": 1, "attention_head_dim": 12, "ffn_dim": 24,
        "num_layers": 1,
    }  # fmt: skip
    transformer: Any = WanTransformer3DModel(**config)
    card = {"model": "toy-wan", "config": config}
    save_shards(transformer.state_dict(), tmp_path / "run", "transformer", card)
    words = ["--vae", str(tmp_path / "vae"), "--transformer", str(tmp_path / "run")]
    words += ["--out", str(tmp_path / "out"), "--count", "2", "--steps", "2", "--videos"]
    sample.main([*words, "--device", "cpu"])
    videos = load_file(tmp_path / "out" / "samples.safetensors")["videos"]
    assert videos.shape == (2, FRAMES, 32, 48, 3)
    assert not torch.equal(videos[0], videos[1])
    picture = cv2.imread(str(tmp_path / "out" / "samples.png"))
    assert picture.shape == (4 * 16 + 3 * 4, 5 * 24 + 4 * 4, 3)
    np.testing.assert_allclose(
        picture[:16, :24, ::-1],
        clips[0, 0].reshape(16, 2, 24, 2, 3).float().mean(dim=(1, 3)).numpy(),
        atol=0.51,
    )
    facts = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert (facts["samples"], facts["steps"]) == (2, 2)
    run = {"data": "d", "steps": 1, "train_seconds": 1.0, "psnr_db": 1.0, "latents_mean": [0.0]}
    text = model_card(
        {
            "runs": {"vae": run, "transformer": run}, "parameters": {"vae": 1, "transformer": 1},
            "loss": 1.0, "samples": facts,
        }
    )  # fmt: skip
    assert "![" in text
    assert "then 2 videos" in text
