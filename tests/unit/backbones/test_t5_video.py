"""LTX-Video and Mochi, against diffusers' models and pipelines run by hand."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from safetensors.torch import load_file, save_file

from explorer.backbones import (
    _build,
    _latents,
    _ltx_published,
    _mochi_published,
    _tiny,
    ltx,
    mochi,
    registry,
)
from explorer.backbones._options import Target
from explorer.backbones._parts import Family
from explorer.clip import Clip
from explorer.errors import BackboneError

MakeClip = Callable[..., Clip]
LIBRARY: Any = diffusers
SIZES = {"ltx-video": (64, 96), "mochi": (32, 48)}
GRID = (2, 3)
STEP = {"ltx-video": 8, "mochi": 6}
MODULES: dict[str, Any] = {"ltx-video": _ltx_published, "mochi": _mochi_published}
CARDS = {"ltx-video": ltx.CARD, "mochi": mochi.CARD}
SCHEDULES: dict[str, Any] = {"ltx-video": ltx.SCHEDULE, "mochi": mochi.SCHEDULE}
SIGMA, SEED = 0.4, 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("t5")
    for name in SIZES:
        registry.write_tiny(name, root / name)
    return {name: root / name for name in SIZES}


def load(name: str, folder: Path, **changes: Any) -> Any:
    """The backbone of a folder for small pictures."""
    card = MODULES[name].adapt(CARDS[name], folder)
    card = dataclasses.replace(card, input_size=SIZES[name], token_grid=GRID)
    target = Target(weights=folder, **changes)
    return MODULES[name].load(card, target, schedule=SCHEDULES[name])


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Any]:
    return {name: load(name, folders[name]) for name in SIZES}


def clip_of(name: str, make_clip: MakeClip, steps: int = 2) -> Clip:
    return make_clip(1 + steps * STEP[name], SIZES[name])


def noisy(model: Any, clip: Clip) -> torch.Tensor:
    latents = torch.from_numpy(model.encode(clip))[None]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(SEED))
    return (1 - SIGMA) * latents + SIGMA * noise


def outputs(transformer: Any, **inputs: Any) -> list[Any]:
    """What each block returns in one full pass."""
    found: list[Any] = []
    handles = [
        block.register_forward_hook(lambda module, given, output: found.append(output))
        for block in transformer.transformer_blocks
    ]
    with torch.inference_mode():
        transformer(**inputs)
    for handle in handles:
        handle.remove()
    return found


@torch.inference_mode()
@pytest.mark.parametrize("name", SIZES)
def test_latents_are_the_normalised_posterior_mean(
    name: str, models: dict[str, Any], make_clip: MakeClip
) -> None:
    model, clip = models[name], clip_of(name, make_clip)
    mean = model.vae.encode(_latents.to_video(clip.frames)).latent_dist.mean
    config = model.vae.config
    if name == "ltx-video":
        vae = model.vae
        assert float(vae.latents_std.min()) != float(vae.latents_std.max())
        expected = LIBRARY.LTXPipeline._normalize_latents(
            mean, vae.latents_mean, vae.latents_std, config.scaling_factor
        )
    else:
        center, spread = torch.tensor(config.latents_mean), torch.tensor(config.latents_std)
        expected = (mean.movedim(1, -1) - center) / spread
        expected = expected.movedim(-1, 1)
    np.testing.assert_allclose(model.encode(clip), expected[0], rtol=1e-5, atol=1e-6)


def test_features_of_ltx_are_the_blocks_of_the_pipelines_forward_pass(
    folders: dict[str, Path], models: dict[str, Any], make_clip: MakeClip
) -> None:
    model, clip = models["ltx-video"], clip_of("ltx-video", make_clip)
    (path,) = (folders["ltx-video"] / "prompts").iterdir()
    text = load_file(path)
    found = outputs(
        model.transformer,
        hidden_states=LIBRARY.LTXPipeline._pack_latents(noisy(model, clip)),
        encoder_hidden_states=text["prompt"],
        timestep=torch.tensor([1000 * SIGMA]),
        encoder_attention_mask=text["mask"].bool(),
        num_frames=3,
        height=2,
        width=3,
        rope_interpolation_scale=(8 / 25, 32, 32),
    )
    features = model.extract(clip, layers=[0, 1, 2], sigma=SIGMA, seed=SEED)
    for layer, output in enumerate(found):
        expected = output[0].reshape(3, 2, 3, 24).half().numpy()
        np.testing.assert_array_equal(features[layer].values, expected)


@pytest.mark.parametrize("name", SIZES)
def test_queries_and_keys_are_the_normed_projections(
    name: str, models: dict[str, Any], make_clip: MakeClip
) -> None:
    model, clip = models[name], clip_of(name, make_clip)
    attention = model.transformer.transformer_blocks[1].attn1
    for tap, part in (("query", "q"), ("key", "k")):
        seen: list[torch.Tensor] = []
        handle = attention.get_submodule(f"to_{part}").register_forward_hook(
            lambda module, inputs, output, seen=seen: seen.append(output)
        )
        values = model.extract(clip, layers=[1], sigma=SIGMA, tap=tap)[1].values
        handle.remove()
        norm = attention.get_submodule(f"norm_{part}")
        heads = seen[0] if name == "ltx-video" else seen[0].unflatten(2, (2, 12))
        scale = heads.square().mean(-1, keepdim=True).add(1e-5).rsqrt() * norm.weight
        np.testing.assert_allclose(values, (heads * scale).reshape(values.shape), atol=4e-3)


def test_features_of_mochi_are_the_blocks_of_diffusers_forward_pass(
    folders: dict[str, Path], models: dict[str, Any], make_clip: MakeClip
) -> None:
    model, clip = models["mochi"], clip_of("mochi", make_clip)
    transformer = LIBRARY.MochiTransformer3DModel.from_pretrained(
        folders["mochi"] / "transformer", local_files_only=True
    ).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # autocast to float32 on a CPU
        found = outputs(
            transformer,
            hidden_states=noisy(model, clip),
            # no word of it is to be seen
            encoder_hidden_states=torch.randn(1, 256, 16, generator=torch.Generator()),
            timestep=torch.tensor([1000 * (1 - SIGMA)]),
            encoder_attention_mask=torch.zeros(1, 256, dtype=torch.bool),
        )
    features = model.extract(clip, layers=[0, 1, 2], sigma=SIGMA, seed=SEED)
    for layer, (video, _) in enumerate(found):
        expected = video[0].reshape(3, 2, 3, 24).numpy()
        np.testing.assert_allclose(features[layer].values, expected, rtol=1e-3, atol=1e-3)


def test_only_tokens_of_the_prompt_that_are_no_padding_count(
    folders: dict[str, Path], make_clip: MakeClip
) -> None:
    (path,) = (folders["ltx-video"] / "prompts").iterdir()
    model = load("ltx-video", folders["ltx-video"])
    clip = clip_of("ltx-video", make_clip, steps=0)
    expected = model.extract(clip, layers=[2], sigma=SIGMA)[2].values
    assert model.mask.sum() == 2
    model.prompt[:, 2:] = 9.0
    np.testing.assert_array_equal(model.extract(clip, layers=[2], sigma=SIGMA)[2].values, expected)
    model.prompt[:, 1] = 9.0
    assert (model.extract(clip, layers=[2], sigma=SIGMA)[2].values != expected).any()


def test_a_prompt_of_mochi_is_read_from_the_folder(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMERGE3D_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mochi"
    registry.write_tiny("mochi", folder)
    text = {"prompt": torch.ones(1, 256, 16), "mask": torch.ones(1, 256)}
    _tiny.write_prompt(_mochi_published.TEXT, folder, text, "a cat")
    model = load("mochi", folder, prompt="a cat")
    assert torch.equal(model.prompt, text["prompt"])
    with pytest.raises(BackboneError, match="no text_encoder"):
        load("mochi", folder, prompt="a dog")


@pytest.mark.parametrize("name", SIZES)
def test_a_slot_holds_its_frames_and_none_that_come_later(
    name: str, models: dict[str, Any], make_clip: MakeClip
) -> None:
    model, clip, step = models[name], clip_of(name, make_clip), STEP[name]
    frame_to_slot, slot_frames = model.slots(1 + 2 * step)
    assert frame_to_slot.tolist() == [0] + [1] * step + [2] * step
    assert slot_frames.tolist() == [0, 1, 1 + step]
    before = model.encode(clip)
    for slot in (1, 2):
        changed = dataclasses.replace(clip, frames=clip.frames.copy())
        changed.frames[frame_to_slot == slot] = 255 - changed.frames[frame_to_slot == slot]
        after = model.encode(changed)
        np.testing.assert_allclose(after[:, :slot], before[:, :slot], atol=1e-5)
        assert np.abs(after[:, slot] - before[:, slot]).max() > 1e-3


def test_noise_levels_of_ltx_are_those_of_its_scheduler() -> None:
    mu = calculate_shift(ltx.TOKENS, 1024, 4096, 0.95, 2.05)
    scheduler = LIBRARY.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, shift_terminal=0.1
    )
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / 1000, 1000), mu=mu)
    for index in (0, 1, 100, 500, 749, 998, 999):
        sigma = float(scheduler.sigmas[index])
        level = ltx.SCHEDULE.at_sigma(sigma)
        assert level.official_index == index
        assert level.timestep == pytest.approx(float(scheduler.timesteps[index]), rel=1e-6)
        assert (level.signal, level.noise) == (1 - sigma, sigma)
        assert ltx.SCHEDULE.at_index(index).sigma == pytest.approx(sigma, abs=1e-6)
    assert ltx.SCHEDULE.at_sigma(0.0).timestep == 0.0
    assert ltx.SCHEDULE.at_sigma(0.05).official_index == 999


def test_noise_levels_of_mochi_are_those_of_its_scheduler() -> None:
    scheduler = LIBRARY.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    scheduler.set_timesteps(sigmas=np.array(linear_quadratic_schedule(1000, 0.025)))
    for index in (0, 1, 499, 500, 501, 749, 998, 999):
        level = mochi.SCHEDULE.at_index(index)
        # what the scheduler calls sigma is the share of the data here
        assert level.sigma == pytest.approx(1 - float(scheduler.sigmas[index]), abs=1e-6)
        assert level.timestep == pytest.approx(float(scheduler.timesteps[index]), abs=1e-3)
        assert mochi.SCHEDULE.at_sigma(level.sigma).official_index == index
    assert mochi.SCHEDULE.at_sigma(0.25).timestep == 750.0
    assert mochi.SCHEDULE.at_sigma(0.25).noise == 0.25
    for wrong in (-1, 1000):
        with pytest.raises(BackboneError, match="does not exist"):
            mochi.SCHEDULE.at_index(wrong)


def test_of_two_precisions_in_one_folder_the_full_one_is_read_counted_and_hashed(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "mochi"
    registry.write_tiny("mochi", folder)
    for part in ("vae", "transformer"):
        path = folder / part / "diffusion_pytorch_model.safetensors"
        half = {name: value.bfloat16() for name, value in load_file(path).items()}
        save_file(half, path.with_name("diffusion_pytorch_model.bf16.safetensors"))
    twice, once = (Target(weights=each) for each in (folder, folders["mochi"]))
    assert registry.hashes("mochi", twice) == registry.hashes("mochi", once)
    counted = [_mochi_published.adapt(mochi.CARD, each.folder).parameters for each in (twice, once)]
    assert counted[0] == counted[1]
    model, whole = load("mochi", folder), load("mochi", folders["mochi"])
    assert torch.equal(model.transformer.proj_out.weight, whole.transformer.proj_out.weight)
    assert torch.equal(model.vae.encoder.proj_in.weight, whole.vae.encoder.proj_in.weight)
    path.unlink()
    assert registry.hashes("mochi", twice) != registry.hashes("mochi", once)
    model = load("mochi", folder)
    assert torch.equal(model.transformer.proj_out.weight, half["proj_out.weight"].float())


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("part", ["transformer", "vae"])
@pytest.mark.parametrize("fault", ["missing", "unexpected", "shape"])
def test_a_file_that_does_not_fit_is_refused_and_nothing_of_it_stays(
    name: str, part: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    registry.write_tiny(name, folder)
    path = folder / part / "diffusion_pytorch_model.safetensors"
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
    message = {"shape": "has shape"}.get(fault, fault)
    with pytest.raises(BackboneError, match=message):
        load(name, folder)
    assert all(parameter.is_meta for parameter in built[-1].parameters())


@pytest.mark.parametrize("name", SIZES)
def test_the_card_counts_what_the_released_configuration_has(name: str) -> None:
    family: Family = MODULES[name].FAMILY
    with torch.device("meta"):
        parts = [getattr(LIBRARY, part)() for part in (family.network, family.vae)]
    card = CARDS[name]
    assert card.parameters == sum(w.numel() for part in parts for w in part.parameters())
    transformer, vae = parts
    assert card.layers == len(transformer.transformer_blocks)
    config = transformer.config
    assert card.width == config.num_attention_heads * config.attention_head_dim
    patch = vae.spatial_compression_ratio * config.patch_size
    assert card.token_grid == tuple(size // patch for size in card.input_size)
    assert card.frame_step == vae.temporal_compression_ratio
    assert (card.max_frames - 1) % card.frame_step == 0


@pytest.mark.parametrize("name", SIZES)
def test_bfloat16_stays_near_float32_on_the_same_latents(
    name: str, folders: dict[str, Path], models: dict[str, Any], make_clip: MakeClip
) -> None:
    clip = clip_of(name, make_clip, steps=1)
    half = load(name, folders[name], dtype="bfloat16")
    np.testing.assert_array_equal(half.encode(clip), models[name].encode(clip))
    for layer in (0, 2):
        one, other = (
            model.extract(clip, layers=[layer], sigma=SIGMA)[layer].values.astype(float)
            for model in (models[name], half)
        )
        assert 0 < np.abs(one - other).mean() < 0.05 * one.std()
