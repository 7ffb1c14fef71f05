"""Aether's adapters against the library called by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cogvideox_by_hand import ByHand, as_features, library, seeded

from explorer.backbones import _cogvideox, _weights, loaded, registry
from explorer.backbones._options import Target
from explorer.clip import Clip
from explorer.errors import BackboneError, Cancelled

MakeClip = Callable[..., Clip]

SIZE = (64, 96)
IDS = ("aether", "aether-geometry", "aether-official")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aether") / "model"
    registry.write_tiny("aether", folder)
    return folder


@pytest.fixture(scope="module")
def hand(folder: Path) -> ByHand:
    return ByHand(folder)


@pytest.fixture(scope="module")
def load(folder: Path) -> Iterator[Callable[..., Any]]:
    yield lambda name, **options: registry.load(name, target=Target(weights=folder, **options))
    loaded.unload()


def rotary(slots: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Angles written out: heads of 16 channels, 4 for time, 6 for rows, 6 for columns."""

    def angles(places: torch.Tensor, width: int) -> torch.Tensor:
        speeds = 10000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
        return (places[:, None] * speeds).repeat_interleave(2, dim=1)

    grid = torch.meshgrid(torch.arange(slots), torch.arange(4), torch.arange(6), indexing="ij")
    time, row, column = (axis.flatten().double() for axis in grid)
    table = torch.cat([angles(1.5 * time, 4), angles(row, 6), angles(column, 6)], dim=1)
    return table.cos().float(), table.sin().float()


def known(hand: ByHand, clip: Clip, slots: int) -> torch.Tensor:
    """The first frame's latents at time 0, zeros after it, and no rays."""
    condition = torch.zeros(1, slots, 4 + 24, 8, 12)
    condition[:, :1, :4] = hand.latents(clip.frames[:1])
    return condition


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=2e-3, atol=5e-4)


def test_time_runs_one_and_a_half_times_as_fast(hand: ByHand) -> None:
    found = _cogvideox.rotary(hand.config, 3, (4, 6), torch.device("cpu"), pace=1.5)
    assert found is not None
    for table, expected in zip(found, rotary(3), strict=True):
        torch.testing.assert_close(table, expected)


def test_without_geometry_its_channels_hold_scaled_noise(
    load: Callable[..., Any], hand: ByHand, make_clip: MakeClip
) -> None:
    model, clip = load("aether"), make_clip(9, SIZE)
    level = model.schedule.at_sigma(0.6)
    clean = torch.zeros(1, 3, 4 + 4 + 24, 8, 12)
    clean[:, :, :4] = hand.latents(clip.frames)
    noise = seeded((1, 32, 3, 8, 12), 4).permute(0, 2, 1, 3, 4)
    noisy = level.signal * clean + level.noise * noise
    hidden = torch.cat([noisy, known(hand, clip, 3)], dim=2)
    expected = hand.outputs(hidden, level.timestep, rotary(3))["block"]
    found = model.extract(clip, layers=range(4), sigma=0.6, seed=4)
    for layer, output in enumerate(expected):
        close(found[layer].values, as_features(output)[0])


@torch.no_grad()
def reconstructed(hand: ByHand, video: torch.Tensor, start: torch.Tensor, again: Any) -> Any:
    """Four steps of the second-order solver (Lu et al., 2022) in its stochastic form, by formula.

    The schedule ends at zero signal and full signal, where the logarithm of their ratio is infinite
    and the step is one of first order.
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    root = torch.cumprod(1 - betas, 0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    condition = torch.cat([video, torch.zeros(*video.shape[:2], 24, 8, 12)], dim=2)
    sample, earlier = start, None
    steps = [999, 749, 499, 249]
    for number, step in enumerate(steps):
        a = root[step]
        b = root[step - 250] if step >= 250 else torch.tensor(1.0, dtype=torch.float64)
        velocity = hand.transformer(
            hidden_states=torch.cat([sample, condition], dim=2),
            encoder_hidden_states=hand.prompt,
            timestep=torch.tensor([step]),
            image_rotary_emb=rotary(video.shape[1]),
        ).sample
        clean = a * sample - (1 - a**2).sqrt() * velocity
        # exp(-h): the ratio of noise to signal after the step over that before it.
        shrink = (1 - b**2).sqrt() / b * a / (1 - a**2).sqrt()
        guess = clean
        first = again(sample.shape)
        if number not in (0, 3):
            before = root[steps[number - 1]]
            now, last = (value / (1 - value**2).sqrt() for value in (a, before))
            after = b / (1 - b**2).sqrt()
            ratio = (now / last).log() / (after / now).log()
            guess = clean if torch.isinf(ratio) else clean + (clean - earlier) / (2 * ratio)
        if number not in (0, 3):
            first = again(sample.shape)
        spread = (1 - b**2).sqrt()
        sample = (
            spread / (1 - a**2).sqrt() * shrink * sample
            + b * (1 - shrink**2) * guess
            + spread * (1 - shrink**2).sqrt() * first
        ).float()
        earlier = clean
    return sample[:, :, 4:]


def test_geometry_is_what_the_model_reconstructs_from_the_whole_clip(
    load: Callable[..., Any], hand: ByHand, make_clip: MakeClip
) -> None:
    model, clip = load("aether-geometry"), make_clip(9, SIZE)
    latents = model.encode(clip)
    assert latents.shape == (4 + 4 + 24, 1 + 3, 8, 12)
    video = hand.latents(clip.frames)
    generator = torch.Generator().manual_seed(0)

    def draw(shape: Any) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    expected = reconstructed(hand, video, draw((1, 3, 32, 8, 12)), draw)
    found = torch.from_numpy(latents).transpose(0, 1)
    torch.testing.assert_close(found[:1, :4], hand.latents(clip.frames[:1])[0])
    assert not found[:1, 4:].any()
    torch.testing.assert_close(found[1:, :4], video[0])
    torch.testing.assert_close(found[1:, 4:], expected[0], rtol=1e-3, atol=1e-4)


def test_with_geometry_it_is_noisy_like_the_video(
    load: Callable[..., Any], hand: ByHand, make_clip: MakeClip
) -> None:
    model, clip = load("aether-geometry"), make_clip(9, SIZE)
    latents = model.encode(clip)
    level = model.schedule.at_sigma(0.6)
    noise = seeded((1, 32, 3, 8, 12), 4)
    noisy = level.signal * torch.from_numpy(latents[:, 1:]) + level.noise * noise[0]
    hidden = torch.cat([noisy.transpose(0, 1)[None], known(hand, clip, 3)], dim=2)
    expected = hand.outputs(hidden, level.timestep, rotary(3))["block"][3]
    found = model.extract(clip, layers=[3], sigma=0.6, seed=4, latents=latents)[3]
    close(found.values, as_features(expected)[0])
    plain = load("aether").extract(clip, layers=[3], sigma=0.6, seed=4)[3]
    assert np.abs(plain.values - found.values).mean() > 0.01


def test_the_released_order_reconstructs_each_clip_by_itself(
    load: Callable[..., Any], make_clip: MakeClip
) -> None:
    official, clip = load("aether-official"), make_clip(17, SIZE)
    latents = official.encode(clip)
    assert latents.shape == (32, 1 + 2 * 3, 8, 12)
    one, other = latents[:, 1:4], latents[:, 4:]
    assert np.abs(one[:4, 0] - other[:4, 0]).max() > 0, "other frames share the VAE's chunk"
    assert np.abs(one[4:] - other[4:]).mean() > 0.01
    features = official.extract(clip, layers=[0], sigma=0.3, latents=latents)[0]
    assert features.slot_frames.tolist() == [0, 1, 2, 9, 10]


def test_a_reconstruction_can_be_stopped_in_any_step(
    load: Callable[..., Any], make_clip: MakeClip
) -> None:
    model, clip, asked = load("aether-geometry"), make_clip(5, SIZE), []
    latents = model.encode(clip, should_stop=lambda: asked.append(0) is not None)
    # The lock, the first frame, one chunk, and four blocks in each of four steps.
    assert len(asked) == 3 + 16
    answers = iter([False] * 12 + [True])
    with pytest.raises(Cancelled):
        model.encode(clip, should_stop=lambda: next(answers))
    np.testing.assert_array_equal(model.encode(clip), latents)


def test_reconstructed_latents_belong_to_transformer_prompt_and_dtype(folder: Path) -> None:
    def encoder(name: str, dtype: str) -> str | None:
        return registry.hashes(name, Target(weights=folder, dtype=dtype)).encoder

    assert encoder("aether", "float32") == encoder("aether", "bfloat16")
    assert encoder("aether-geometry", "float32") != encoder("aether-geometry", "bfloat16")
    assert len({encoder(name, "float32") for name in IDS}) == 3


def test_shared_parts_are_looked_for_beside_the_transformer_then_in_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = registry.card("aether").source
    assert source is not None
    assert source.shared is not None
    assert _weights.shared_folder(source, folder) == folder
    alone, shared = tmp_path / "aether", tmp_path / "cogvideox"
    shutil.copytree(folder / "transformer", alone / "transformer")
    for part in ("vae", "prompts"):
        shutil.copytree(folder / part, shared / part)
    cached: dict[str, Path] = {}
    monkeypatch.setattr(_weights, "_cached", lambda source: cached.get(source.repo))
    with pytest.raises(BackboneError, match=r"lacks .*vae: .*zai-org/CogVideoX-5b-I2V"):
        registry.load("aether", target=Target(weights=alone))
    cached[source.shared.repo] = shared
    found = registry.load("aether", target=Target(weights=alone))
    together = registry.hashes("aether", Target(weights=folder))
    assert (found.weights_hash, found.encoder_hash) == (together.weights, together.encoder)


def test_both_repositories_must_be_in_the_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = registry.card("aether")
    assert card.source is not None
    cached = {card.source.repo: folder}
    monkeypatch.delenv("EMERGE3D_WEIGHTS", raising=False)
    monkeypatch.setattr(_weights, "_cached", lambda source: cached.get(source.repo))
    with pytest.raises(BackboneError, match=r"AetherV1 and zai-org/CogVideoX-5b-I2V"):
        _weights.find_weights(card)
    assert card.source.shared is not None
    cached[card.source.shared.repo] = folder
    assert _weights.find_weights(card) == folder


def test_a_download_fetches_both_repositories(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, list[str]]] = []

    def fetch(repo: str, *, allow_patterns: list[str]) -> str:
        asked.append((repo, allow_patterns))
        return f"/{repo}"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    card = registry.card("aether")
    assert _weights.download(card) == Path("/AetherWorldModel/AetherV1")
    assert [repo for repo, _ in asked] == ["zai-org/CogVideoX-5b-I2V", "AetherWorldModel/AetherV1"]
    assert "transformer/*" not in asked[0][1]
    assert asked[1][1] == ["transformer/*"]


def test_the_solver_is_the_one_that_the_schedule_of_the_model_names() -> None:
    from explorer.backbones import _aether
    from explorer.noise import CogVideoXSchedule

    solver = library.CogVideoXDPMScheduler(**_aether.SOLVER)
    solver.set_timesteps(_aether.STEPS)
    assert solver.timesteps.tolist() == [999, 749, 499, 249]
    np.testing.assert_allclose(
        solver.alphas_cumprod**0.5, CogVideoXSchedule(1.0).signals, atol=1e-6
    )
