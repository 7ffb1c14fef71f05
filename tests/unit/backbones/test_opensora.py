"""What is particular to Open-Sora 2.0's adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hunyuan_by_hand as hand
import numpy as np
import pytest
import torch
from hunyuan_cases import OPENSORA

from explorer.backbones import _hunyuan_vae, _opensora_published, registry
from explorer.backbones._options import Target
from explorer.backbones.base import slot_map
from explorer.clip import Clip
from explorer.errors import BackboneError
from explorer.nets.mmdit import MMDiT, MMDiTConfig
from explorer.noise import OpenSoraSchedule

MakeClip = Callable[..., Clip]
ID = OPENSORA.id


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return OPENSORA.write(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return hand.small(OPENSORA.load(folder))


@pytest.mark.parametrize("tap", ["query", "key"])
def test_taps_are_what_the_attention_gets_but_not_rotated(
    model: Any, folder: Path, make_clip: MakeClip, tap: str
) -> None:
    clip = make_clip(9, hand.SIZE)
    network, place = OPENSORA.transformer(folder), ("query", "key").index(tap)
    products: list[torch.Tensor] = []
    for block in network.blocks:
        block.attention.register_forward_pre_hook(
            lambda module, inputs: products.append(inputs[place][0, :, 512:])
        )
    with torch.no_grad():
        network(**OPENSORA.given(folder, clip, 0.5, 0))
    found = model.extract(clip, layers=range(OPENSORA.layers), sigma=0.5, tap=tap)
    for layer, rotated in enumerate(products):
        heads = torch.from_numpy(found[layer].values).float().flatten(0, 2).unflatten(-1, (2, 12))
        heads = heads.transpose(0, 1)
        # The first token is at the origin, where nothing is turned; turning keeps lengths.
        torch.testing.assert_close(heads[:, 0], rotated[:, 0], rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(heads.norm(dim=-1), rotated.norm(dim=-1), rtol=2e-3, atol=2e-3)
        assert (heads - rotated).abs().max() > 0.1


def test_latents_end_with_the_first_frame_encoded_alone(
    model: Any, folder: Path, make_clip: MakeClip
) -> None:
    clip = make_clip(9, hand.SIZE)
    vae, video = hand.plain_vae(folder / "hunyuan_vae.safetensors"), hand.pixels(clip)
    latents = torch.from_numpy(model.encode(clip))
    assert latents.shape == (4, 4, 8, 12)
    torch.testing.assert_close(latents[:, :3], hand.encode(vae, video)[0])
    torch.testing.assert_close(latents[:, 3:], hand.encode(vae, video[:, :, :1])[0])
    assert (latents[:, 3] - latents[:, 0]).abs().max() > 1e-3
    with pytest.raises(BackboneError, match=r"needs \(4, 4, 8, 12\)"):
        model.extract(clip, layers=[0], sigma=0.3, latents=latents[:, :3].numpy())


def test_large_pictures_are_encoded_in_tiles_that_fade_into_each_other(
    folder: Path, make_clip: MakeClip
) -> None:
    target = Target(weights=folder)
    vae = _hunyuan_vae.load_vae(target, [folder / "hunyuan_vae.safetensors"], hand.VAE_SETTINGS)
    plain = hand.plain_vae(folder / "hunyuan_vae.safetensors")
    video = hand.pixels(make_clip(25, (64, 352)))
    found = _hunyuan_vae.encode_video(vae, video)
    left, right = hand.encode(plain, video[..., :256]), hand.encode(plain, video[..., 192:])
    fade = torch.arange(8) / 8
    torch.testing.assert_close(found[..., :24], left[..., :24])
    mixed = left[..., 24:] * (1 - fade) + right[..., :8] * fade
    torch.testing.assert_close(found[..., 24:32], mixed)
    torch.testing.assert_close(found[..., 32:], right[..., 8:])
    in_time = _hunyuan_vae.encode_video(_hunyuan_vae.tiled(vae, small=True), video)
    assert in_time.shape == found.shape
    assert (in_time - found).abs().max() > 1e-4


def released_vae_names() -> set[str]:
    """Names of the released VAE's tensors, from the structure of its published definition."""

    def both(module: str) -> list[str]:
        return [f"{module}.weight", f"{module}.bias"]

    def block(module: str, *, shortcut: bool) -> list[str]:
        parts = ["norm1", "conv1.conv", "norm2", "conv2.conv"]
        parts += ["conv_shortcut.conv"] if shortcut else []
        return [name for part in parts for name in both(f"{module}.{part}")]

    names = both("quant_conv") + both("post_quant_conv")
    for part, stage, layers, changed in (
        ("encoder", "down", 2, (1, 2)),
        ("decoder", "up", 3, (2, 3)),
    ):
        for module in ("conv_in.conv", "conv_norm_out", "conv_out.conv"):
            names += both(f"{part}.{module}")
        for index in range(4):
            for layer in range(layers):
                first = f"{part}.{stage}_blocks.{index}.resnets.{layer}"
                names += block(first, shortcut=layer == 0 and index in changed)
            if index < 3:
                names += both(f"{part}.{stage}_blocks.{index}.{stage}samplers.0.conv.conv")
        for index in range(2):
            names += block(f"{part}.mid_block.resnets.{index}", shortcut=False)
        for module in ("group_norm", "to_q", "to_k", "to_v", "to_out.0"):
            names += both(f"{part}.mid_block.attentions.0.{module}")
    return set(names)


def test_the_released_files_fit_without_any_renaming_and_are_counted_on_the_card() -> None:
    with torch.device("meta"):
        vae, transformer = _hunyuan_vae.make({}), MMDiT(MMDiTConfig())
    assert set(vae.state_dict()) == released_vae_names()
    parts = [sum(value.numel() for value in part.parameters()) for part in (vae, transformer)]
    card = registry.card(ID)
    assert sum(parts) == card.parameters
    assert len(transformer.blocks) == card.layers
    assert transformer.config.hidden_size == card.width
    assert vae.config.scaling_factor == hand.SCALING


def test_a_folder_without_a_file_or_with_unreadable_sizes_says_so(tmp_path: Path) -> None:
    folder = OPENSORA.write(tmp_path / "tiny")
    (folder / "sizes.json").write_text("{")
    with pytest.raises(BackboneError, match="sizes.json cannot be read"):
        registry.card(ID, weights=folder)
    (folder / "hunyuan_vae.safetensors").unlink()
    with pytest.raises(BackboneError, match="no hunyuan_vae.safetensors"):
        registry.card(ID, weights=folder)


def test_a_folder_without_sizes_is_taken_for_the_released_one(tmp_path: Path) -> None:
    folder = OPENSORA.write(tmp_path / "tiny")
    (folder / "sizes.json").unlink()
    card = registry.card(ID, weights=folder)
    assert (card.layers, card.width, card.default_cell) == (57, 3072, (39, 0.764))
    with pytest.raises(BackboneError, match="do not fit"):
        OPENSORA.load(folder)


def test_frames_are_mapped_as_in_the_released_probes() -> None:
    frame_to_slot, slot_frames = slot_map(129, registry.card(ID).frame_step)
    assert len(slot_frames) == 33
    for frame in range(1, 81):
        assert frame_to_slot[frame] == np.floor((frame - 1) / 80 * 20) + 1


def test_the_default_cell_is_the_papers() -> None:
    card = registry.card(ID)
    assert card.default_cell[0] == 19 + 20
    level = registry.noise_level(ID, card.default_cell[1])
    assert level is not None
    assert level.official_index == 250
    assert level.timestep == pytest.approx(card.default_cell[1])
    assert level.noise == pytest.approx(0.764, abs=1e-5)
    schedule = OpenSoraSchedule(card.token_grid[0] * card.token_grid[1], 33)
    assert schedule.at_time(0.25).sigma == pytest.approx(card.default_cell[1], abs=1e-3)


@pytest.mark.parametrize("latent_frames", [1, 5, 21, 33])
@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.764, 1.0])
def test_the_model_sees_one_sigma_alike_in_clips_of_any_length(
    latent_frames: int, sigma: float
) -> None:
    here = OpenSoraSchedule(1590, latent_frames).at_sigma(sigma)
    released = registry.noise_level(ID, sigma)
    assert released is not None
    for name in ("timestep", "signal", "noise"):
        assert getattr(here, name) == pytest.approx(getattr(released, name))
    shifted = latent_frames < 33 and sigma < 1
    assert (here.official_index > released.official_index) == shifted


def test_other_prompts_are_embedded_once_with_all_padding_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    monkeypatch.setattr("explorer.backbones._prompt.default_root", lambda: tmp_path / "cache")
    folder = OPENSORA.write(tmp_path / "tiny")
    with pytest.raises(BackboneError, match="no google/t5-v1_1-xxl in"):
        _opensora_published.prompt(folder, "a red house")
    torch.manual_seed(0)
    t5 = transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=6, d_model=16, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ).eval()
    clip = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=6,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            eos_token_id=1,
        )
    ).eval()
    for name, encoder in (("google/t5-v1_1-xxl", t5), ("openai/clip-vit-large-patch14", clip)):
        encoder.save_pretrained(folder / name)
        hand.write_tokenizer(folder / name, ["a", "red", "house"])
    found = _opensora_published.prompt(folder, "a red house")
    with torch.no_grad():
        states = t5(torch.tensor([[3, 4, 5, 1] + [0] * 508])).last_hidden_state
        pooled = clip(torch.tensor([[3, 4, 5, 1] + [0] * 73])).pooler_output
    torch.testing.assert_close(found["text"], states, rtol=0.05, atol=0.05)
    torch.testing.assert_close(found["pooled"], pooled, rtol=0.05, atol=0.05)
    monkeypatch.setattr(transformers.T5EncoderModel, "from_pretrained", None)
    assert torch.equal(_opensora_published.prompt(folder, "a red house")["text"], found["text"])


def test_tiny_sizes_are_written_down(folder: Path) -> None:
    sizes = json.loads((folder / "sizes.json").read_text())
    assert sizes["vae"] == {**hand.VAE_SETTINGS, "block_out_channels": [4, 4, 8, 8]}
