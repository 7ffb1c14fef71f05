"""Wan 2.2 against diffusers' own pipeline and plain forward passes."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from weights_left import set_aside

from explorer.backbones import registry, wan22
from explorer.backbones._options import Target
from explorer.clip import Clip
from explorer.errors import BackboneError

MakeClip = Callable[..., Clip]
SMALL, IMAGE, EXPERTS = "wan2.2-ti2v-5b", "wan2.2-ti2v-5b-i2v", "wan2.2-a14b"
SIZE, GRID = (64, 96), {SMALL: (2, 3), IMAGE: (2, 3), EXPERTS: (4, 6)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("wan22")
    for name in (SMALL, EXPERTS):
        registry.write_tiny(name, root / name)
    return {name: root / name for name in (SMALL, EXPERTS)}


@pytest.fixture(autouse=True)
def _quick_collections() -> Iterator[None]:
    """Experts that change places collect garbage: half a second with all libraries in it."""
    with set_aside():
        yield


def load(name: str, folder: Path) -> Any:
    card = dataclasses.replace(
        registry.card(name, weights=folder), input_size=SIZE, token_grid=GRID[name]
    )
    loader = {SMALL: wan22.load_small, IMAGE: wan22.load_image, EXPERTS: wan22.load_experts}[name]
    return loader(card, Target(weights=folder))


@pytest.fixture(scope="module")
def small(folders: dict[str, Path]) -> Any:
    return load(SMALL, folders[SMALL])


@pytest.fixture(scope="module")
def experts(folders: dict[str, Path]) -> Any:
    return load(EXPERTS, folders[EXPERTS])


def plain_pass(
    model: Any, transformer: Any, clip: Clip, sigma: float, seed: int, **named: Any
) -> list[np.ndarray]:
    """Block outputs of the library's models, with noise and latents written out."""
    level = registry.noise_level(model.card.id, sigma)
    assert level is not None
    config = model.vae.config
    center, spread = (
        torch.tensor(values).view(1, -1, 1, 1, 1)
        for values in (config.latents_mean, config.latents_std)
    )
    video = torch.from_numpy(clip.frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    outputs: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        for block in transformer.blocks
    ]
    with torch.no_grad():
        clean = (model.vae.encode(video).latent_dist.mean - center) / spread
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
        given = {
            "timestep": torch.tensor([level.timestep]),
            "encoder_hidden_states": model.prompt,
            **named,
        }
        transformer(hidden_states=level.signal * clean + level.noise * noise, **given)
    for handle in handles:
        handle.remove()
    shape = (clean.shape[2], *model.card.token_grid, model.card.width)
    return [output[0].reshape(shape).half().numpy() for output in outputs]


def test_the_small_model_sees_a_timestep_for_each_token(small: Any, make_clip: MakeClip) -> None:
    clip, sigma = make_clip(9, SIZE), 0.627
    steps = torch.full((1, 3 * 2 * 3), 627.0)
    expected = plain_pass(small, small.transformer, clip, sigma, 5, timestep=steps)
    found = small.extract(clip, layers=range(4), sigma=sigma, seed=5)
    assert found[0].timestep == 627.0
    assert found[0].official_index == 749
    for layer, output in enumerate(expected):
        np.testing.assert_allclose(found[layer].values, output, atol=2e-3, rtol=1e-3)


def test_the_pipeline_gives_the_small_model_the_same_kind_of_timesteps(small: Any) -> None:
    import diffusers

    library: Any = diffusers
    given: dict[str, Any] = {}
    pipeline = library.WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=small.vae,
        scheduler=library.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
        ),
        transformer=small.transformer,
        expand_timesteps=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    handle = small.transformer.register_forward_pre_hook(
        lambda module, inputs, named: given.update(named), with_kwargs=True
    )
    pipeline(
        height=SIZE[0],
        width=SIZE[1],
        num_frames=9,
        num_inference_steps=1,
        guidance_scale=1.0,
        prompt_embeds=small.prompt,
        output_type="latent",
    )
    handle.remove()
    step = given["timestep"]
    assert torch.equal(small.network_time(float(step[0, 0]), 3 * 2 * 3), step)


def test_a_first_frame_has_no_noise_and_timestep_0_as_in_the_pipeline(
    folders: dict[str, Path], make_clip: MakeClip
) -> None:
    """The pipeline encodes the frame alone and puts it in the place of the first latents."""
    import diffusers
    from PIL import Image

    library: Any = diffusers
    model, clip, sigma = load(IMAGE, folders[SMALL]), make_clip(9, SIZE), 0.627
    given: dict[str, Any] = {}
    pipeline = library.WanImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=model.vae,
        scheduler=library.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
        ),
        transformer=model.transformer,
        expand_timesteps=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    handle = model.transformer.register_forward_pre_hook(
        lambda module, inputs, named: given.update(named), with_kwargs=True
    )
    pipeline(
        Image.fromarray(clip.frames[0]),
        height=SIZE[0],
        width=SIZE[1],
        num_frames=9,
        num_inference_steps=1,
        guidance_scale=1.0,
        prompt_embeds=model.prompt,
        output_type="latent",
    )
    theirs = dict(given)
    found = model.extract(clip, layers=[3], sigma=sigma, seed=5)
    handle.remove()
    level = registry.noise_level(IMAGE, sigma)
    assert level is not None
    steps = theirs["timestep"] / theirs["timestep"].max() * level.timestep
    assert torch.equal(given["timestep"], steps)
    assert steps.unique().tolist() == [0.0, level.timestep]
    ours = given["hidden_states"]
    torch.testing.assert_close(ours[:, :, 0], theirs["hidden_states"][:, :, 0])
    clean = torch.from_numpy(model.encode(clip))[None]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    noisy = level.signal * clean + level.noise * noise
    torch.testing.assert_close(ours[:, :, 1:], noisy[:, :, 1:])
    plain = load(SMALL, folders[SMALL])
    assert model.weights_hash != plain.weights_hash
    assert model.encoder_hash == plain.encoder_hash, "they share latents"
    text = plain.extract(clip, layers=[3], sigma=sigma, seed=5)
    assert not np.array_equal(found[3].values, text[3].values)


def test_latents_of_the_small_model_shrink_sixteen_times(small: Any, make_clip: MakeClip) -> None:
    assert small.encode(make_clip(5, SIZE)).shape == (4, 2, 4, 6)


def test_every_noise_level_is_read_by_its_expert(experts: Any, make_clip: MakeClip) -> None:
    clip = make_clip(5, SIZE)
    for sigma, part in ((0.3, "transformer_2"), (0.95, "transformer")):
        found = experts.extract(clip, layers=range(4), sigma=sigma, seed=1)
        assert experts.expert == part
        expected = plain_pass(experts, experts.transformer, clip, sigma, 1)
        for layer, output in enumerate(expected):
            np.testing.assert_allclose(found[layer].values, output, atol=2e-3, rtol=1e-3)


def test_the_experts_have_their_own_weights(experts: Any, folders: dict[str, Path]) -> None:
    for sigma, part in ((0.3, "transformer_2"), (0.95, "transformer")):
        network = experts.network(experts.timestep(sigma)[0], lambda: False)
        (path,) = (folders[EXPERTS] / part).glob("*.safetensors")
        for name, tensor in load_file(path).items():
            assert torch.equal(network.state_dict()[name], tensor)


def test_the_boundary_is_where_the_pipeline_has_it(experts: Any) -> None:
    assert [experts.expert_for(step) for step in (999.0, 875.0, 874.0, 0.0)] == [
        "transformer",
        "transformer",
        "transformer_2",
        "transformer_2",
    ]


def test_one_expert_at_a_time_is_read_and_only_when_it_is_asked_for(
    folders: dict[str, Path], make_clip: MakeClip
) -> None:
    clip = make_clip(1, SIZE)
    with set_aside() as weights_left:
        model = load(EXPERTS, folders[EXPERTS])
        assert model.expert is None
        encoder = len(weights_left())
        model.extract(clip, layers=[0], sigma=0.95)
        assert model.expert == "transformer"
        both = len(weights_left())
        assert both > encoder
        model.extract(clip, layers=[0], sigma=0.3)
        assert model.expert == "transformer_2"
        assert len(weights_left()) == both
    network = model.transformer
    model.extract(clip, layers=[0], sigma=0.5)
    assert model.transformer is network


def test_passes_of_both_experts_at_once_give_what_each_gives_alone(
    folders: dict[str, Path], make_clip: MakeClip
) -> None:
    model, clip = load(EXPERTS, folders[EXPERTS]), make_clip(1, SIZE)
    sigmas = (0.3, 0.95, 0.5)
    expected = [model.extract(clip, layers=[3], sigma=each)[3].values for each in sigmas]
    start = Barrier(len(sigmas))

    def work(sigma: float) -> np.ndarray:
        start.wait()
        found: np.ndarray = model.extract(clip, layers=[3], sigma=sigma)[3].values
        return found

    with ThreadPoolExecutor(len(sigmas)) as pool:
        for found, alone in zip(pool.map(work, sigmas), expected, strict=True):
            np.testing.assert_array_equal(found, alone)


def test_the_expert_in_memory_can_be_asked_for_while_a_pass_holds_the_lock(
    folders: dict[str, Path], make_clip: MakeClip
) -> None:
    model = load(EXPERTS, folders[EXPERTS])
    assert model.transformer is None
    assert model.blocks == ()
    seen: list[int] = []

    def should_stop() -> bool:
        seen.append(len(model.blocks))
        return False

    model.extract(make_clip(1, SIZE), layers=[3], sigma=0.3, should_stop=should_stop)
    assert seen[0] == 0
    assert seen[-1] == 4


def test_the_hash_covers_both_experts(folders: dict[str, Path], tmp_path: Path) -> None:
    first = registry.hashes(EXPERTS, Target(weights=folders[EXPERTS]))
    for part in ("transformer", "transformer_2", "vae"):
        changed = tmp_path / part
        shutil.copytree(folders[EXPERTS], changed)
        (path,) = (changed / part).glob("*.safetensors")
        tensors = load_file(path)
        next(iter(tensors.values()))[:] += 1
        save_file(tensors, path)
        other = registry.hashes(EXPERTS, Target(weights=changed))
        assert other.weights != first.weights
        assert (other.encoder == first.encoder) == (part != "vae")


@pytest.mark.parametrize(
    ("name", "part", "change", "message"),
    [
        (SMALL, "vae", lambda t: t.pop("quant_conv.bias"), "missing quant_conv.bias"),
        (SMALL, "transformer", lambda t: t.update(extra=torch.zeros(1)), "unexpected extra"),
        (
            EXPERTS,
            "transformer_2",
            lambda t: t.update({"proj_out.bias": torch.zeros(3)}),
            r"proj_out.bias has shape \(3,\) instead of \(16,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_none_stays_in_memory(
    folders: dict[str, Path],
    tmp_path: Path,
    make_clip: MakeClip,
    name: str,
    part: str,
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folders[name], broken)
    (path,) = (broken / part).glob("*.safetensors")
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with set_aside() as weights_left:
        with pytest.raises(BackboneError, match=message):
            load(name, broken).extract(make_clip(1, SIZE), layers=[0], sigma=0.3)
        assert weights_left() == []


def test_an_expert_that_could_not_be_read_leaves_the_other_usable(
    folders: dict[str, Path], tmp_path: Path, make_clip: MakeClip
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folders[EXPERTS], broken)
    model, clip = load(EXPERTS, broken), make_clip(1, SIZE)
    expected = model.extract(clip, layers=[2], sigma=0.3)[2].values
    (path,) = (broken / "transformer").glob("*.safetensors")
    path.write_bytes(b"cut short")
    with pytest.raises(BackboneError, match="broken"):
        model.extract(clip, layers=[2], sigma=0.95)
    assert model.expert is None
    np.testing.assert_array_equal(model.extract(clip, layers=[2], sigma=0.3)[2].values, expected)


def test_a_missing_expert_is_noticed_before_anything_is_read(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folders[EXPERTS], broken)
    shutil.rmtree(broken / "transformer_2")
    with pytest.raises(BackboneError, match="transformer_2"):
        load(EXPERTS, broken)


def test_the_cards_count_the_published_parameters() -> None:
    import diffusers

    library: Any = diffusers
    # From transformer/config.json and vae/config.json of the published repositories.
    with torch.device("meta"):
        parts = {
            SMALL: [
                library.WanTransformer3DModel(
                    in_channels=48,
                    out_channels=48,
                    num_attention_heads=24,
                    ffn_dim=14336,
                    num_layers=30,
                ),
                library.AutoencoderKLWan(
                    base_dim=160,
                    decoder_base_dim=256,
                    z_dim=48,
                    is_residual=True,
                    in_channels=12,
                    out_channels=12,
                    patch_size=2,
                    scale_factor_spatial=16,
                    latents_mean=[0.0] * 48,
                    latents_std=[1.0] * 48,
                ),
            ],
            EXPERTS: [library.WanTransformer3DModel(), library.AutoencoderKLWan()],
        }
    for name, models in parts.items():
        counted = sum(weights.numel() for model in models for weights in model.parameters())
        assert registry.card(name).parameters == counted
    assert registry.card(IMAGE).parameters == registry.card(SMALL).parameters
