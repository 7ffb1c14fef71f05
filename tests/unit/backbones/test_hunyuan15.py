"""HunyuanVideo 1.5's adapter against diffusers' two networks called by hand."""

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

from explorer.backbones import _hunyuan15_published, _hunyuan_vae, registry
from explorer.backbones._options import Target
from explorer.clip import Clip
from explorer.errors import BackboneError
from explorer.noise import FlowSchedule

MakeClip = Callable[..., Clip]
ID = "hunyuanvideo-1.5"
LAYERS, WIDTH, SCALING = 4, 24, 1.03682


def write(folder: Path) -> Path:
    _hunyuan15_published.write_tiny(folder)
    return folder


def load(folder: Path, dtype: str = "float32") -> Any:
    card = registry.card(ID, weights=folder)
    target = Target(weights=folder, dtype=dtype)
    return _hunyuan15_published.load(card, target, schedule=FlowSchedule(5.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return hand.small(load(folder))


def weights_of(folder: Path, part: str) -> dict[str, torch.Tensor]:
    (path,) = (folder / part).glob("*.safetensors")
    return load_file(path)


def plain_vae(folder: Path) -> Any:
    import diffusers

    library: Any = diffusers
    vae = library.AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(2, 4, 8, 16, 16), layers_per_block=1
    )
    vae.load_state_dict(weights_of(folder, "vae"), strict=True)
    return vae.eval()


@torch.no_grad()
def encode(vae: Any, video: torch.Tensor) -> torch.Tensor:
    return vae.encoder(video).chunk(2, dim=1)[0] * SCALING


def plain_transformer(folder: Path) -> Any:
    import diffusers

    library: Any = diffusers
    network = library.HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=LAYERS,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=16,
        text_embed_2_dim=8,
        image_embed_dim=8,
        rope_axes_dim=(4, 4, 4),
    )
    network.load_state_dict(weights_of(folder, "transformer"), strict=True)
    return network.eval()


def given(folder: Path, clip: Clip, sigma: float, seed: int) -> dict[str, torch.Tensor]:
    """Everything that the transformer is called with."""
    latents = encode(plain_vae(folder), hand.pixels(clip))
    latents = hand.mix(latents, sigma, seed) if sigma else latents
    texts = load_file(folder / "prompts" / "qwen2.5-vl-7b-1000-byt5-256-empty.safetensors")
    return {
        "hidden_states": torch.cat([latents, torch.zeros(1, 5, *latents.shape[2:])], dim=1),
        "timestep": torch.tensor([1000 * sigma]),
        "encoder_hidden_states": texts["text"],
        "encoder_attention_mask": texts["mask"],
        "encoder_hidden_states_2": texts["glyphs"],
        "encoder_attention_mask_2": texts["glyph_mask"],
        "image_embeds": torch.zeros(1, 729, 8),
    }


@pytest.mark.parametrize(("count", "sigma"), [(1, 0.0), (9, 0.625)])
def test_features_are_the_image_tokens_of_a_plain_forward(
    model: Any, folder: Path, make_clip: MakeClip, count: int, sigma: float
) -> None:
    clip, seed = make_clip(count, hand.SIZE), 5
    network = plain_transformer(folder)
    with torch.no_grad(), hand.recorded(list(network.transformer_blocks)) as outputs:
        network(**given(folder, clip, sigma, seed))
    found = model.extract(clip, layers=range(LAYERS), sigma=sigma, seed=seed)
    slots = 1 + (count - 1) // 4
    for layer, (image, text) in enumerate(outputs):
        assert text.shape == (1, 1000 + 256 + 729, WIDTH)
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
    clip = make_clip(5, hand.SIZE)
    network = plain_transformer(folder)
    projected: list[torch.Tensor] = []
    for block in network.transformer_blocks:
        projection = {"query": block.attn.to_q, "key": block.attn.to_k}[tap]
        projection.register_forward_hook(lambda module, inputs, out: projected.append(out[0]))
    with torch.no_grad():
        network(**given(folder, clip, 0.5, 0))
    found = model.extract(clip, layers=range(LAYERS), sigma=0.5, tap=tap)
    for layer, (block, raw) in enumerate(zip(network.transformer_blocks, projected, strict=True)):
        heads = raw.unflatten(-1, (2, 12))
        scale = {"query": block.attn.norm_q, "key": block.attn.norm_k}[tap].weight.detach()
        normed = heads / (heads.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale
        expected = normed.reshape(2, *hand.GRID, WIDTH).numpy()
        np.testing.assert_allclose(found[layer].values, expected, rtol=2e-3, atol=1e-3)


def test_large_pictures_are_encoded_in_tiles_that_fade_into_each_other(
    folder: Path, make_clip: MakeClip
) -> None:
    settings = json.loads((folder / "vae" / "config.json").read_text())
    files = list((folder / "vae").glob("*.safetensors"))
    kind = _hunyuan15_published.FAMILY.vae
    video = hand.pixels(make_clip(1, (64, 320)))
    plain = plain_vae(folder)
    for small, tile, step in ((False, 256, 192), (True, 128, 96)):
        target = Target(weights=folder, vae_tiling=small)
        vae = _hunyuan_vae.load_vae(target, files, settings, kind)
        found = _hunyuan_vae.encode_video(vae, video)
        assert found.shape == (1, 4, 1, 4, 20)
        left = encode(plain, video[..., :tile])
        right = encode(plain, video[..., step : step + tile])
        kept, faded = step // 16, (tile - step) // 16
        fade = torch.arange(faded) / faded
        torch.testing.assert_close(found[..., :kept], left[..., :kept])
        mixed = left[..., kept:] * (1 - fade) + right[..., :faded] * fade
        torch.testing.assert_close(found[..., kept : kept + faded], mixed)


def test_the_released_configuration_is_counted_on_the_card() -> None:
    import diffusers

    library: Any = diffusers
    with torch.device("meta"):
        transformer = library.HunyuanVideo15Transformer3DModel(task_type="t2v")
        vae = library.AutoencoderKLHunyuanVideo15()
    card = registry.card(ID)
    counted = sum(value.numel() for part in (transformer, vae) for value in part.parameters())
    assert counted == card.parameters
    assert len(transformer.transformer_blocks) == card.layers
    assert vae.config.scaling_factor == SCALING


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


@pytest.mark.parametrize("change", [{"task_type": "i2v"}, {"use_meanflow": True}])
def test_another_model_of_the_family_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = write(tmp_path / "tiny")
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BackboneError, match="another model of the family.*480p_t2v"):
        registry.card(ID, weights=folder)


def test_words_for_the_text_encoders_are_the_pipelines() -> None:
    from diffusers.pipelines.hunyuan_video1_5 import pipeline_hunyuan_video1_5 as pipeline

    library: Any = pipeline
    asked = inspect.signature(library.HunyuanVideo15Pipeline._get_mllm_prompt_embeds).parameters
    assert asked["system_message"].default == _hunyuan15_published.SYSTEM
    assert asked["crop_start"].default == _hunyuan15_published.TEMPLATE_TOKENS
    assert asked["tokenizer_max_length"].default == _hunyuan15_published.TEXT_TOKENS
    for text in ('a sign "a red" and “house” and "a red"', 'one "house"'):
        assert library.extract_glyph_texts(text) == _hunyuan15_published.glyph_text(text)
    assert library.extract_glyph_texts("a house") is None
    assert _hunyuan15_published.glyph_text("a house") == ""


def test_other_prompts_are_embedded_with_what_they_quote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    monkeypatch.setattr("explorer.backbones._prompt.default_root", lambda: tmp_path / "cache")
    folder = write(tmp_path / "tiny")
    with pytest.raises(BackboneError, match="no text_encoder in"):
        _hunyuan15_published.prompt(folder, "a red house")
    monkeypatch.setattr(_hunyuan15_published, "SYSTEM", "look at")
    monkeypatch.setattr(_hunyuan15_published, "TEMPLATE_TOKENS", 2)
    torch.manual_seed(0)
    qwen = transformers.Qwen2_5_VLTextModel(
        transformers.Qwen2_5_VLTextConfig(
            vocab_size=12,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=0,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
        )
    ).eval()
    t5 = transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=12, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ).eval()
    words = ["look", "at", "a", "red", "house", "now", "Text", '"house".', '"house"']
    chat = (
        "{% for one in messages %}{{ one['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}now{% endif %}"
    )
    for number, encoder in (("", qwen), ("_2", t5)):
        encoder.save_pretrained(folder / f"text_encoder{number}")
        hand.write_tokenizer(folder / f"tokenizer{number}", words, chat=chat)
    found = _hunyuan15_published.prompt(folder, 'a red "house"')
    with torch.no_grad():
        ids = torch.tensor([[3, 4, 5, 6, 11, 8]])
        states = qwen(ids, output_hidden_states=True).hidden_states[2]
        glyphs = t5(torch.tensor([[9, 10, 1]])).last_hidden_state
    assert found["text"].shape == (1, 1000, 16)
    assert found["mask"][0, :6].tolist()[:4] == [1.0] * 4
    torch.testing.assert_close(found["text"][:, :4], states[:, 2:], rtol=0.05, atol=0.05)
    assert found["glyphs"].shape == (1, 256, 8)
    assert found["glyph_mask"][0].tolist() == [1.0] * 3 + [0.0] * 253
    torch.testing.assert_close(found["glyphs"][:, :3], glyphs)
    plain = _hunyuan15_published.prompt(folder, "a red house")
    assert not plain["glyphs"].any()
    assert not plain["glyph_mask"].any()
