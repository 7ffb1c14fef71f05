"""Stable Video Diffusion, against diffusers' models and scheduler run by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from explorer.backbones import _build, _latents, _svd_published, registry, svd
from explorer.backbones._options import Target
from explorer.clip import Clip
from explorer.errors import BackboneError

MakeClip = Callable[..., Clip]
LIBRARY: Any = diffusers
SIZE, GRID = (64, 96), (4, 6)
RATIO, SEED = 0.75, 3
SIGMA = 0.6  # 0.75 / sqrt(1 + 0.75^2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("svd")
    registry.write_tiny("svd", root)
    return root


def load(folder: Path, **changes: Any) -> Any:
    card = dataclasses.replace(
        _svd_published.adapt(svd.CARD, folder), input_size=SIZE, token_grid=GRID
    )
    return _svd_published.load(card, Target(weights=folder, **changes), schedule=svd.SCHEDULE)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load(folder)


def scheduler() -> Any:
    """As published with the weights."""
    found = LIBRARY.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        timestep_spacing="leading",
        timestep_type="continuous",
        steps_offset=1,
    )
    found.set_timesteps(1000)
    return found


@torch.inference_mode()
def test_latents_are_the_scaled_posterior_mean_of_each_frame(
    model: Any, make_clip: MakeClip
) -> None:
    clip = make_clip(3, SIZE)
    found = model.encode(clip)
    assert found.shape == (4, 3, 8, 12)
    images = _latents.to_video(clip.frames)[0].transpose(0, 1)
    expected = model.vae.encode(images).latent_dist.mean.transpose(0, 1) * 0.18215
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_features_are_the_attention_modules_of_a_full_forward_pass(
    model: Any, make_clip: MakeClip
) -> None:
    clip, unet = make_clip(3, SIZE), model.transformer
    latents = torch.from_numpy(model.encode(clip))[None]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(SEED))
    # what a scheduler's scale_model_input makes of x_0 + s eps
    noisy = ((latents + RATIO * noise) / (RATIO**2 + 1) ** 0.5).transpose(1, 2)
    found: list[torch.Tensor] = []
    modules = [*unet.down_blocks[1].attentions, *unet.up_blocks[2].attentions]
    handles = [
        module.register_forward_hook(lambda module, given, output: found.append(output[0]))
        for module in modules
    ]
    unet(
        torch.cat([noisy, torch.zeros_like(noisy)], dim=2),
        torch.tensor(0.25 * np.log(RATIO), dtype=torch.float32),
        encoder_hidden_states=torch.zeros(1, 1, 16),
        added_time_ids=torch.tensor([[6.0, 127.0, 0.02]]),
    )
    for handle in handles:
        handle.remove()
    features = model.extract(clip, layers=[0, 1, 2], sigma=SIGMA, seed=SEED)
    assert len(found) == len(features) == 3
    for layer, output in enumerate(found):
        assert output.shape == (3, 32, *GRID)
        expected = output.permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(features[layer].values, expected, rtol=2e-3, atol=2e-3)


@torch.inference_mode()
def test_queries_and_keys_are_those_within_a_frame(model: Any, make_clip: MakeClip) -> None:
    clip = make_clip(2, SIZE)
    block = model.blocks[1].transformer_blocks[0]
    seen: list[torch.Tensor] = []
    handle = block.norm1.register_forward_hook(lambda module, given, output: seen.append(output))
    for tap, projection in (("query", block.attn1.to_q), ("key", block.attn1.to_k)):
        values = model.extract(clip, layers=[1], sigma=SIGMA, tap=tap)[1].values
        expected = projection(seen[-1]).reshape(2, *GRID, 32)
        np.testing.assert_allclose(values, expected, rtol=2e-3, atol=2e-3)
    handle.remove()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_noise_levels_are_those_of_the_scheduler() -> None:
    published = scheduler()
    for index in (0, 1, 100, 500, 749, 998, 999):
        level, ratio = svd.SCHEDULE.at_index(index), float(published.sigmas[index])
        assert level.official_index == index
        assert level.noise / level.signal == pytest.approx(ratio, rel=1e-4)
        assert level.signal**2 + level.noise**2 == pytest.approx(1.0)
        assert level.sigma == pytest.approx(level.noise)
        assert level.timestep == pytest.approx(float(published.timesteps[index]), abs=1e-4)
        if ratio < 50:
            assert svd.SCHEDULE.at_sigma(level.sigma).official_index == index
    assert svd.SCHEDULE.at_sigma(SIGMA).noise == pytest.approx(SIGMA)
    assert svd.SCHEDULE.at_sigma(SIGMA).timestep == pytest.approx(0.25 * np.log(RATIO))
    assert svd.SCHEDULE.at_sigma(0.0).official_index == 999
    assert svd.SCHEDULE.at_sigma(1.0).official_index == 0


def test_every_frame_is_a_slot_and_sees_the_others(model: Any, make_clip: MakeClip) -> None:
    clip = make_clip(3, SIZE)
    changed = dataclasses.replace(clip, frames=clip.frames.copy())
    changed.frames[2] = 255 - changed.frames[2]
    one, other = (model.extract(some, layers=[2], sigma=0.3)[2] for some in (clip, changed))
    assert one.frame_to_slot.tolist() == one.slot_frames.tolist() == [0, 1, 2]
    assert (one.values[0] != other.values[0]).any()
    np.testing.assert_array_equal(model.encode(clip)[:, :2], model.encode(changed)[:, :2])


@pytest.mark.parametrize("part", ["unet", "vae"])
@pytest.mark.parametrize("fault", ["missing", "unexpected", "shape"])
def test_a_file_that_does_not_fit_is_refused_and_nothing_of_it_stays(
    folder: Path, part: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("unet", "vae"):
        (tmp_path / name).mkdir()
        for path in (folder / name).iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    path = tmp_path / part / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    victim = next(key for key in state if key.endswith("weight"))
    if fault == "missing":
        del state[victim]
    elif fault == "unexpected":
        state["more.weight"] = torch.zeros(2)
    else:
        state[victim] = torch.zeros(1, 1)
    save_file(state, path)
    built: list[torch.nn.Module] = []
    empty = _build.build_empty

    def remember(*parts: Any) -> Any:
        built.append(empty(*parts))
        return built[-1]

    monkeypatch.setattr(_build, "build_empty", remember)
    with pytest.raises(BackboneError, match={"shape": "has shape"}.get(fault, fault)):
        load(tmp_path)
    assert all(parameter.is_meta for parameter in built[-1].parameters())


def test_the_card_counts_what_the_released_configuration_has() -> None:
    with torch.device("meta"):
        unet = LIBRARY.UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20))
        vae = LIBRARY.AutoencoderKLTemporalDecoder(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            layers_per_block=2,
        )
    card = svd.CARD
    assert card.parameters == sum(w.numel() for part in (unet, vae) for w in part.parameters())
    modules = [*unet.down_blocks[1].attentions, *unet.up_blocks[2].attentions]
    assert len(modules) == card.layers
    assert {module.proj_out.out_features for module in modules} == {card.width}
    assert card.token_grid == tuple(size // 16 for size in card.input_size)
