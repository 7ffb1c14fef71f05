"""What is particular to HunyuanVideo's adapter."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import hunyuan_by_hand as hand
import pytest
import torch
from hunyuan_cases import HUNYUAN, blocks_of

from explorer.backbones import _hunyuan_published, registry
from explorer.errors import BackboneError

ID = HUNYUAN.id


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


def test_a_model_that_needs_an_image_is_refused(tmp_path: Path) -> None:
    folder = HUNYUAN.write(tmp_path / "tiny")
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
    folder = HUNYUAN.write(tmp_path / "tiny")
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
