from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from explorer.backbones import _latents, registry
from explorer.backbones._latent_control import LatentControl
from explorer.backbones._position import CHANNELS, OCTAVES, position_channels
from explorer.backbones._wan import WanBackbone
from explorer.backbones.base import Hashes
from explorer.backbones.controls import RgbBackbone
from explorer.clip import Clip

MakeClip = Callable[..., Clip]


def test_position_channels_are_waves_of_time_row_and_column() -> None:
    position = position_channels(np.array([0, 1, 5]), (4, 8), max_frames=17)
    assert position.shape == (3, 4, 8, CHANNELS)
    times, rows, columns = np.split(position, 3, axis=-1)
    octave = np.pi * 2.0 ** np.arange(OCTAVES)
    for part, value in [
        (times[2, 0, 0], 5 / 16),
        (rows[1, 3, 2], 3.5 / 4),
        (columns[0, 1, 6], 6.5 / 8),
    ]:
        expected = np.concatenate([np.sin(value * octave), np.cos(value * octave)])
        np.testing.assert_allclose(part, expected, atol=1e-6)


def test_every_token_has_its_own_position() -> None:
    position = position_channels(np.array([0, 1, 5, 9, 13]), (18, 32), max_frames=17)
    flat = position.reshape(-1, CHANNELS).astype(np.float64)
    assert len(np.unique(flat.round(4), axis=0)) == 5 * 18 * 32


@pytest.fixture
def rgb() -> RgbBackbone:
    card = dataclasses.replace(registry.card("rgb"), input_size=(32, 48), token_grid=(4, 6))
    return RgbBackbone(card)


def test_rgb_tokens_are_the_pixels_of_the_slot_frame(rgb: RgbBackbone, make_clip: MakeClip) -> None:
    clip = make_clip(9)
    features = rgb.extract(clip, layers=[0], sigma=0.0)[0]
    for slot, frame in enumerate([0, 1, 5]):
        patch = clip.frames[frame, 8:16, 24:32].astype(np.float64) / 127.5 - 1
        np.testing.assert_allclose(features.values[slot, 1, 3, :192], patch.ravel(), atol=1e-3)


def test_rgb_ignores_sigma_and_reports_zero(rgb: RgbBackbone, make_clip: MakeClip) -> None:
    noisy = rgb.extract(make_clip(5), layers=[0], sigma=0.7, seed=3)[0]
    clean = rgb.extract(make_clip(5), layers=[0], sigma=0.0)[0]
    assert (noisy.sigma, noisy.timestep) == (0.0, 0.0)
    np.testing.assert_array_equal(noisy.values, clean.values)


def test_latent_tokens_are_2x2_noisy_latents_and_the_position(
    tiny: WanBackbone, make_clip: MakeClip
) -> None:
    control = LatentControl(tiny.card, tiny.vae, hashes=Hashes("w", "x"), trained=False)
    clip = make_clip(5)
    features = control.extract(clip, layers=[0], sigma=0.3, seed=2)[0]
    latents = tiny.encode(clip)
    noise = _latents.gaussian_noise((1, *latents.shape), 2)[0].numpy()
    noisy = 0.7 * latents + 0.3 * noise
    assert features.values.shape == (2, 4, 6, 16 + CHANNELS)
    token = features.values[1, 2, 5, :16].reshape(4, 2, 2)
    np.testing.assert_allclose(token, noisy[:, 1, 4:6, 10:12], rtol=2e-3, atol=2e-3)


def test_the_random_control_shares_the_vae_and_nothing_else_with_toy_wan() -> None:
    toy, random = registry.load("toy-wan", device="cpu"), registry.load("random", device="cpu")
    assert random.encoder_hash == toy.encoder_hash
    assert random.weights_hash != toy.weights_hash
    assert isinstance(toy, WanBackbone)
    assert isinstance(random, WanBackbone)
    theirs = dict(toy.transformer.named_parameters())
    same = [
        name
        for name, value in random.transformer.named_parameters()
        if value.std() > 0 and bool((value == theirs[name]).all())
    ]
    assert same == []
