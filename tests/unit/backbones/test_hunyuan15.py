"""What is particular to HunyuanVideo 1.5's adapter."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hunyuan_by_hand as hand
import pytest
import torch
from hunyuan_cases import HUNYUAN15, SCALING15, encode15, vae15

from explorer.backbones import _hunyuan15_published, _hunyuan_vae, registry
from explorer.backbones._options import Target
from explorer.clip import Clip
from explorer.errors import BackboneError

MakeClip = Callable[..., Clip]
ID = HUNYUAN15.id


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return HUNYUAN15.write(tmp_path_factory.mktemp("weights") / "tiny")


def test_large_pictures_are_encoded_in_tiles_that_fade_into_each_other(
    folder: Path, make_clip: MakeClip
) -> None:
    settings = json.loads((folder / "vae" / "config.json").read_text())
    files = list((folder / "vae").glob("*.safetensors"))
    kind = _hunyuan15_published.FAMILY.vae
    video = hand.pixels(make_clip(1, (64, 320)))
    plain = vae15(folder)
    for small, tile, step in ((False, 256, 192), (True, 128, 96)):
        target = Target(weights=folder, vae_tiling=small)
        vae = _hunyuan_vae.load_vae(target, files, settings, kind)
        found = _hunyuan_vae.encode_video(vae, video)
        assert found.shape == (1, 4, 1, 4, 20)
        left = encode15(plain, video[..., :tile])
        right = encode15(plain, video[..., step : step + tile])
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
    assert vae.config.scaling_factor == SCALING15


@pytest.mark.parametrize("change", [{"task_type": "i2v"}, {"use_meanflow": True}])
def test_another_model_of_the_family_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = HUNYUAN15.write(tmp_path / "tiny")
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
    folder = HUNYUAN15.write(tmp_path / "tiny")
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
