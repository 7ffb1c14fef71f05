"""HunyuanVideo's adapter against diffusers' two networks called by hand."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hunyuan_by_hand as hand
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from explorer.backbones import _hunyuan_published, registry
from explorer.backbones._options import Target
from explorer.clip import Clip
from explorer.errors import BackboneError
from explorer.noise import FlowSchedule

MakeClip = Callable[..., Clip]
ID = "hunyuanvideo"
DOUBLE, SINGLE, WIDTH = 2, 3, 24


def write(folder: Path) -> Path:
    _hunyuan_published.write_tiny(folder)
    return folder


def load(folder: Path, dtype: str = "float32") -> Any:
    card = registry.card(ID, weights=folder)
    target = Target(weights=folder, dtype=dtype)
    return _hunyuan_published.load(card, target, schedule=FlowSchedule(7.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return hand.small(load(folder))


def plain_transformer(folder: Path) -> Any:
    import diffusers

    library: Any = diffusers
    network = library.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=DOUBLE,
        num_single_layers=SINGLE,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(4, 4, 4),
    )
    (weights,) = (folder / "transformer").glob("*.safetensors")
    network.load_state_dict(load_file(weights), strict=True)
    return network.eval()


def given(folder: Path, clip: Clip, sigma: float, seed: int) -> dict[str, torch.Tensor]:
    """Everything that the transformer is called with."""
    latents = hand.encode(
        hand.plain_vae(*(folder / "vae").glob("*.safetensors")), hand.pixels(clip)
    )
    texts = load_file(folder / "prompts" / "llava-llama-3-8b-256-clip-l-empty.safetensors")
    assert 0 < texts["mask"].sum() < texts["mask"].numel()
    return {
        "hidden_states": hand.mix(latents, sigma, seed) if sigma else latents,
        "timestep": torch.tensor([1000 * sigma]),
        "encoder_hidden_states": texts["text"],
        "encoder_attention_mask": texts["mask"],
        "pooled_projections": texts["pooled"],
        "guidance": torch.tensor([6016.0]),
    }


def blocks_of(network: Any) -> list[Any]:
    return [*network.transformer_blocks, *network.single_transformer_blocks]


@pytest.mark.parametrize(("count", "sigma"), [(1, 0.0), (9, 0.7), (21, 0.3)])
def test_features_are_the_image_tokens_of_a_plain_forward(
    model: Any, folder: Path, make_clip: MakeClip, count: int, sigma: float
) -> None:
    clip, seed = make_clip(count, hand.SIZE), 5
    network = plain_transformer(folder)
    with torch.no_grad(), hand.recorded(blocks_of(network)) as outputs:
        network(**given(folder, clip, sigma, seed))
    found = model.extract(clip, layers=range(DOUBLE + SINGLE), sigma=sigma, seed=seed)
    slots = 1 + (count - 1) // 4
    for layer, (image, text) in enumerate(outputs):
        assert text.shape == (1, 256, WIDTH)
        expected = image[0].reshape(slots, *hand.GRID, WIDTH).numpy()
        np.testing.assert_allclose(found[layer].values, expected, rtol=2e-3, atol=2e-4)


def test_half_precision_tells_the_network_the_same(
    model: Any, folder: Path, make_clip: MakeClip
) -> None:
    half = hand.small(load(folder, "bfloat16"))
    hand.check_half_precision(model, half, make_clip(9, hand.SIZE), sigma=0.6257)


@pytest.mark.parametrize("tap", ["query", "key"])
def test_taps_are_the_normed_projections_of_the_image_tokens(
    model: Any, folder: Path, make_clip: MakeClip, tap: str
) -> None:
    clip = make_clip(9, hand.SIZE)
    network, letter = plain_transformer(folder), tap[0]
    projected: list[torch.Tensor] = []
    for block in blocks_of(network):
        projection = {"q": block.attn.to_q, "k": block.attn.to_k}[letter]
        projection.register_forward_hook(lambda module, inputs, out: projected.append(out[0, :72]))
    with torch.no_grad():
        network(**given(folder, clip, 0.5, 0))
    found = model.extract(clip, layers=range(DOUBLE + SINGLE), sigma=0.5, tap=tap)
    for layer, (block, raw) in enumerate(zip(blocks_of(network), projected, strict=True)):
        heads = raw.unflatten(-1, (2, 12))
        scale = {"q": block.attn.norm_q, "k": block.attn.norm_k}[letter].weight.detach()
        normed = heads / (heads.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale
        expected = normed.reshape(3, *hand.GRID, WIDTH).numpy()
        np.testing.assert_allclose(found[layer].values, expected, rtol=2e-3, atol=1e-3)


def test_the_released_configuration_is_counted_on_the_card() -> None:
    import diffusers

    library: Any = diffusers
    with torch.device("meta"):
        transformer = library.HunyuanVideoTransformer3DModel()
        vae = library.AutoencoderKLHunyuanVideo()
    card = registry.card(ID)
    counted = sum(value.numel() for part in (transformer, vae) for value in part.parameters())
    assert counted == card.parameters
    assert len(blocks_of(transformer)) == card.layers
    assert transformer.config.guidance_embeds


@pytest.mark.parametrize("part", ["transformer", "vae"])
@pytest.mark.parametrize("how", ["missing", "unexpected", "has shape"])
def test_weights_that_do_not_fit_are_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, how: str
) -> None:
    folder = write(tmp_path / "tiny")
    (weights,) = (folder / part).glob("*.safetensors")
    hand.break_file(weights, how)
    message, left = hand.networks_left(monkeypatch, lambda: load(folder))
    assert re.match(f"BackboneError: the weights in .* do not fit .*{how}", message), message
    assert left == 0


def test_a_model_that_needs_an_image_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "tiny")
    path = folder / "transformer" / "config.json"
    config = {**json.loads(path.read_text()), "image_condition_type": "token_replace"}
    path.write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="image-to-video.*hunyuanvideo-community/HunyuanVideo"):
        registry.card(ID, weights=folder)


def test_noise_is_added_and_named_as_the_pipelines_scheduler_does() -> None:
    import diffusers

    library: Any = diffusers
    scheduler = library.FlowMatchEulerDiscreteScheduler(shift=7.0)
    scheduler.set_timesteps(1000)
    for index in (100, 749, 998):
        level = registry.noise_level(ID, float(scheduler.sigmas[index]))
        assert level is not None
        assert level.timestep == pytest.approx(float(scheduler.timesteps[index]), rel=1e-5)
        assert level.noise == pytest.approx(float(scheduler.sigmas[index]))
        assert level.signal == pytest.approx(1 - level.noise)
    assert registry.card(ID).default_cell[1] == pytest.approx(
        float(scheduler.sigmas[749]), abs=0.01
    )


def test_other_prompts_are_put_into_the_template_and_lose_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    monkeypatch.setattr("explorer.backbones._prompt.default_root", lambda: tmp_path / "cache")
    folder = write(tmp_path / "tiny")
    with pytest.raises(BackboneError, match="no text_encoder in"):
        _hunyuan_published.prompt(folder, "a red house")
    monkeypatch.setattr(_hunyuan_published, "TEMPLATE", "look at {} now")
    monkeypatch.setattr(_hunyuan_published, "TEMPLATE_TOKENS", 2)
    torch.manual_seed(0)
    llama = transformers.LlamaModel(
        transformers.LlamaConfig(
            vocab_size=9,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            pad_token_id=0,
        )
    ).eval()
    clip = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=9,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            eos_token_id=1,
        )
    ).eval()
    words = ["look", "at", "a", "red", "house", "now"]
    for number, encoder in (("", llama), ("_2", clip)):
        encoder.save_pretrained(folder / f"text_encoder{number}")
        hand.write_tokenizer(folder / f"tokenizer{number}", words)
    found = _hunyuan_published.prompt(folder, "a red house")
    ids = torch.tensor([[3, 4, 5, 6, 7, 8, 1]])
    with torch.no_grad():
        states = llama(ids, output_hidden_states=True).hidden_states[2]
        pooled = clip(torch.tensor([[5, 6, 7, 1] + [0] * 73])).pooler_output
    assert found["text"].shape == (1, 256, 16)
    assert found["mask"][0].tolist() == [1.0] * 5 + [0.0] * 251
    torch.testing.assert_close(found["text"][:, :5], states[:, 2:], rtol=0.01, atol=0.01)
    torch.testing.assert_close(found["pooled"], pooled, rtol=0.01, atol=0.01)


def test_the_guidance_is_what_the_pipeline_makes_of_its_default() -> None:
    import diffusers

    from explorer.backbones import _hunyuan

    library: Any = diffusers
    default = inspect.signature(library.HunyuanVideoPipeline.__call__).parameters["guidance_scale"]
    given = torch.tensor([default.default], dtype=torch.bfloat16) * 1000.0
    assert float(given) == _hunyuan.GUIDANCE


def test_the_template_is_the_pipelines() -> None:
    from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video as pipeline

    template: dict[str, Any] = pipeline.DEFAULT_PROMPT_TEMPLATE
    assert template["template"] == _hunyuan_published.TEMPLATE
    assert template["crop_start"] == _hunyuan_published.TEMPLATE_TOKENS
