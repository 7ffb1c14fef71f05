"""Wan image to video against diffusers' own pipeline and plain forward passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from weights_left import set_aside

from explorer.backbones import _wan_image, wan_image
from explorer.backbones._options import Target
from explorer.backbones._wan_image import WanImageBackbone
from explorer.backbones.registry import card, noise_level
from explorer.clip import Clip, clip_from_frames
from explorer.errors import BackboneError, Cancelled

MakeClip = Callable[..., Clip]
SIZE, GRID = (64, 96), (4, 6)
ID = "wan2.1-i2v-14b"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wan-image")
    _wan_image.write_tiny(path)
    return path


def load(folder: Path) -> Any:
    small = dataclasses.replace(card(ID, weights=folder), input_size=SIZE, token_grid=GRID)
    return wan_image.load(small, Target(weights=folder))


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load(folder)


@pytest.fixture(scope="module")
def shown(model: WanImageBackbone, make_clip: MakeClip) -> tuple[Clip, dict[str, Any]]:
    """A clip, and what diffusers' pipeline gives the transformer for its first frame."""
    import diffusers
    from PIL import Image
    from transformers import CLIPImageProcessorPil

    library: Any = diffusers
    clip = make_clip(9, SIZE)
    given: dict[str, Any] = {}
    size = model.image_encoder.config.image_size
    pipeline = library.WanImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=model.vae,
        scheduler=library.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}
        ),
        image_encoder=model.image_encoder,
        transformer=model.transformer,
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
        latents=torch.zeros(1, 4, 3, 8, 12),
        output_type="latent",
    )
    handle.remove()
    return clip, given


def test_mask_and_first_frame_are_shown_as_in_the_pipeline(
    model: WanImageBackbone, shown: tuple[Clip, dict[str, Any]]
) -> None:
    clip, given = shown
    model.prepare(clip, lambda: False)
    found = model.network_input(torch.zeros(1, 4, 3, 8, 12))
    assert found.shape == (1, 12, 3, 8, 12)
    assert found[0, 4:8, 0].min() == 1.0
    assert found[0, 4:8, 1:].abs().max() == 0.0
    torch.testing.assert_close(found, given["hidden_states"], atol=1e-6, rtol=1e-5)


def test_the_image_embedding_is_that_of_the_pipeline(
    model: WanImageBackbone, shown: tuple[Clip, dict[str, Any]]
) -> None:
    clip, given = shown
    model.prepare(clip, lambda: False)
    assert model.image is not None
    expected = given["encoder_hidden_states_image"]
    assert model.image.shape == expected.shape == (1, 17, 16)
    # The picture is scaled in bytes by another library: a few pixels differ by one level.
    assert (model.image - expected).abs().max() < 0.02 * expected.std()


@pytest.mark.parametrize("size", [(480, 832), (64, 96), (97, 61)])
def test_pixels_are_scaled_cut_and_normalised_as_clip_wants_them(
    size: tuple[int, int], make_clip: MakeClip
) -> None:
    from PIL import Image
    from transformers import CLIPImageProcessorPil

    frame = make_clip(1, size).frames[0]
    expected = CLIPImageProcessorPil()(Image.fromarray(frame), return_tensors="pt").pixel_values
    found = _wan_image.clip_pixels(frame, 224)
    levels = (found - expected).abs() * torch.tensor(_wan_image.CLIP_STD).view(1, 3, 1, 1) * 255
    assert levels.max() < 2.01
    assert levels.mean() < 0.1


def test_features_are_those_of_a_plain_forward_pass(
    model: WanImageBackbone, make_clip: MakeClip
) -> None:
    clip, sigma, seed = make_clip(9, SIZE, seed=3), 0.3, 5
    level = noise_level(ID, sigma)
    assert level is not None
    config = model.vae.config
    center, spread = (
        torch.tensor(values).view(1, -1, 1, 1, 1)
        for values in (config.latents_mean, config.latents_std)
    )
    video = torch.from_numpy(clip.frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    known = torch.zeros_like(video)
    known[:, :, 0] = video[:, :, 0]
    outputs: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        for block in model.transformer.blocks
    ]
    with torch.no_grad():
        clean, condition = (
            (model.vae.encode(part).latent_dist.mean - center) / spread for part in (video, known)
        )
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
        mask = torch.zeros(1, 4, *clean.shape[2:])
        mask[:, :, 0] = 1
        pixels = _wan_image.clip_pixels(clip.frames[0], 28)
        image = model.image_encoder(pixels, output_hidden_states=True).hidden_states[-2]
        model.transformer(
            hidden_states=torch.cat(
                [level.signal * clean + level.noise * noise, mask, condition], dim=1
            ),
            timestep=torch.tensor([level.timestep]),
            encoder_hidden_states=model.prompt,
            encoder_hidden_states_image=image,
        )
    for handle in handles:
        handle.remove()
    found = model.extract(clip, layers=range(4), sigma=sigma, seed=seed)
    for layer, output in enumerate(outputs):
        expected = output[0].reshape(3, *GRID, 24).half().numpy()
        np.testing.assert_allclose(found[layer].values, expected, atol=2e-3, rtol=1e-3)


def test_the_condition_is_the_first_frame_and_nothing_after_it(
    model: WanImageBackbone, make_clip: MakeClip
) -> None:
    one, other = make_clip(5, SIZE, seed=0), make_clip(5, SIZE, seed=1)
    mixed = clip_from_frames(np.concatenate([one.frames[:1], other.frames[1:]]), name="mixed")
    found = []
    for clip in (one, mixed, other):
        model.prepare(clip, lambda: False)
        found.append((model.network_input(torch.zeros(1, 4, 2, 8, 12)), model.image))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[1][0], found[2][0])
    assert not torch.equal(found[1][1], found[2][1])


def test_the_first_frame_is_described_once_for_all_noise_levels_of_a_clip(
    model: WanImageBackbone, make_clip: MakeClip
) -> None:
    runs: list[int] = []
    handle = model.image_encoder.register_forward_pre_hook(lambda *_: runs.append(1))
    clip = make_clip(5, SIZE, seed=7)
    latents = model.encode(clip)
    chunks: list[int] = []
    second = model.vae.encoder.register_forward_pre_hook(lambda *_: chunks.append(1))
    for sigma in (0.1, 0.5, 0.9):
        model.extract(clip, layers=[0], sigma=sigma, latents=latents)
    assert (len(runs), len(chunks)) == (1, 2)
    model.extract(make_clip(5, SIZE, seed=8), layers=[0], sigma=0.5)
    assert len(runs) == 2
    handle.remove()
    second.remove()


@pytest.mark.parametrize("asked", range(5))
def test_a_stop_while_the_first_frame_is_described_leaves_the_next_pass_right(
    model: WanImageBackbone, make_clip: MakeClip, asked: int
) -> None:
    clip, other = make_clip(5, SIZE, seed=9), make_clip(5, SIZE, seed=10)
    latents = model.encode(other)
    expected = model.extract(clip, layers=[3], sigma=0.5)[3].values
    # Asked once when the lock is there, then before 2 layers of the image encoder and 2 chunks.
    answers = iter([False] * asked + [True])
    with pytest.raises(Cancelled):
        model.extract(
            other, layers=[3], sigma=0.5, latents=latents, should_stop=lambda: next(answers)
        )
    assert next(answers, None) is None
    np.testing.assert_array_equal(model.extract(clip, layers=[3], sigma=0.5)[3].values, expected)


def copied(folder: Path, to: Path, part: str, change: Callable[[dict[str, Any]], None]) -> Path:
    """The folder again, with other tensors in one part."""
    import shutil

    shutil.copytree(folder, to)
    (path,) = (to / part).glob("*.safetensors")
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return to


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (
            "image_encoder",
            lambda t: t.pop("vision_model.pre_layrnorm.bias"),
            "missing pre_layrnorm.bias",
        ),
        ("image_encoder", lambda t: t.update(extra=torch.zeros(1)), "unexpected extra"),
        (
            "image_encoder",
            lambda t: t.update({"vision_model.pre_layrnorm.bias": torch.zeros(3)}),
            r"pre_layrnorm.bias has shape \(3,\) instead of \(16,\)",
        ),
        (
            "transformer",
            lambda t: t.pop("blocks.1.attn2.add_k_proj.weight"),
            "missing blocks.1.attn2.add_k_proj.weight",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_none_stays_in_memory(
    folder: Path,
    tmp_path: Path,
    part: str,
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    broken = copied(folder, tmp_path / "broken", part, change)
    with set_aside() as weights_left:
        with pytest.raises(BackboneError, match=message):
            load(broken)
        assert weights_left() == []


def test_what_published_files_hold_beside_the_weights_is_passed_over(
    folder: Path, tmp_path: Path, model: WanImageBackbone, make_clip: MakeClip
) -> None:
    more = copied(
        folder,
        tmp_path / "more",
        "image_encoder",
        lambda t: t.update(
            {
                "visual_projection.weight": torch.zeros(8, 16),
                "vision_model.embeddings.position_ids": torch.arange(17)[None],
            }
        ),
    )
    again = copied(
        more,
        tmp_path / "again",
        "transformer",
        lambda t: t.update({"blocks.0.attn2.norm_added_q.weight": torch.ones(24)}),
    )
    clip = make_clip(1, SIZE)
    found, expected = (m.extract(clip, layers=[1], sigma=0.2)[1] for m in (load(again), model))
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.backbone_hash != expected.backbone_hash


def test_the_card_counts_the_published_parameters() -> None:
    import diffusers
    from transformers import CLIPVisionConfig, CLIPVisionModel

    library: Any = diffusers
    vision: Any = CLIPVisionModel
    # transformer/config.json and image_encoder/config.json of the published repository.
    clip = CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
    )
    with torch.device("meta"):
        parts = [
            library.WanTransformer3DModel(in_channels=36, image_dim=1280, added_kv_proj_dim=5120),
            vision(clip),
            library.AutoencoderKLWan(),
        ]
    counts = [sum(weights.numel() for weights in part.parameters()) for part in parts]
    assert counts == [
        wan_image.TRANSFORMER_PARAMETERS,
        wan_image.IMAGE_ENCODER_PARAMETERS,
        wan_image.VAE_PARAMETERS,
    ]
    assert card(ID).parameters == sum(counts)
