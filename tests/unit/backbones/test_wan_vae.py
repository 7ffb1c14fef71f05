"""Passes of several slots and layers in few steps give what diffusers' own encoding gives."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import vae_memory
from extraction_models import TINY_VAE
from torch._subclasses.fake_tensor import FakeTensorMode

from explorer.backbones import _latents, _memory, _wan_files, _wan_vae, registry
from explorer.errors import Cancelled


def clips(frames: int, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.rand(batch, 3, frames, 16, 24, generator=generator) * 2 - 1


@pytest.fixture(scope="module")
def theirs(tiny_folder: Path) -> Any:
    """The tiny VAE with diffusers' own layers."""
    from diffusers import AutoencoderKLWan

    kind: Any = AutoencoderKLWan
    vae = _wan_files.load_shipped(tiny_folder / "vae", kind.from_config)
    return vae.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def quick(theirs: Any) -> Any:
    """The same with layers in few steps, on any processor."""
    vae = copy.deepcopy(theirs)
    _wan_vae.channels_last(vae)
    _wan_vae.replace_layers(vae)
    return vae


@pytest.mark.parametrize(("frames", "slots"), [(1, 3), (5, 1), (9, 2), (17, 3), (21, 9)])
def test_passes_of_any_number_of_slots_give_the_latents_of_diffusers(
    theirs: Any, quick: Any, frames: int, slots: int
) -> None:
    video = clips(frames, batch=2)
    expected = theirs.encode(video).latent_dist
    for vae in (theirs, quick):
        with torch.inference_mode():
            found = _wan_vae.encode(vae, video, slots)
        mean, log_variance = found.chunk(2, dim=1)
        torch.testing.assert_close(mean, expected.mean, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            log_variance.clamp(-30, 20), expected.logvar, atol=1e-5, rtol=1e-5
        )


def test_the_passes_are_as_many_as_asked_for(theirs: Any) -> None:
    seen: list[int] = []
    handle = theirs.encoder.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].shape[2])
    )
    for slots in (1, 3, 9):
        _latents.encode_video(theirs, clips(17), slots=slots)
    handle.remove()
    assert seen == [1, 4, 4, 4, 4, 1, 12, 4, 1, 16]


def test_half_precision_stays_as_near_as_with_their_layers(theirs: Any, quick: Any) -> None:
    video = clips(9)
    exact = theirs.encode(video).latent_dist.mean
    far = []
    for vae in (theirs, quick):
        half = copy.deepcopy(vae).to(torch.bfloat16)
        far.append((_wan_vae.encode(half, video.bfloat16(), 2)[:, :4] - exact).abs().mean())
    assert far[1] <= 1.1 * far[0] < 0.1


def test_a_picture_without_any_light_is_no_division_by_zero(quick: Any) -> None:
    layer = next(each for each in quick.encoder.modules() if type(each).__name__ == "WanRMS_norm")
    with torch.inference_mode():
        assert not layer(torch.zeros(1, len(layer.gamma), 1, 2, 2)).any()


@pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="no x86 with AVX"
)
def test_a_vae_on_a_cpu_is_loaded_with_quick_layers(tiny_folder: Path) -> None:
    vae = _wan_files.load_vae(tiny_folder / "vae", device="cpu")
    assert all(
        ("forward" in vars(each)) == (type(each).__name__ in ("WanCausalConv3d", "WanRMS_norm"))
        for each in vae.encoder.modules()
    )
    assert all("forward" not in vars(each) for each in vae.decoder.modules())


def test_a_copy_computes_with_its_own_weights(quick: Any) -> None:
    other, video = copy.deepcopy(quick), clips(5)
    other.encoder.conv_in.weight.data.zero_()
    with torch.inference_mode():
        assert not torch.equal(_wan_vae.encode(other, video, 1), _wan_vae.encode(quick, video, 1))


def test_another_structure_is_left_alone() -> None:
    from diffusers import AutoencoderKLWan

    kind: Any = AutoencoderKLWan
    vae = kind(
        **{**TINY_VAE, "is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2}
    )
    before = {name: weights.stride() for name, weights in vae.named_parameters()}
    _wan_vae.quicken(vae)
    assert all("forward" not in vars(module) for module in vae.modules())
    assert before == {name: weights.stride() for name, weights in vae.named_parameters()}
    assert not _wan_vae.is_covered(vae)


@pytest.mark.parametrize("slots", [1, 9])
def test_a_stop_is_heard_before_any_block_of_a_pass(theirs: Any, slots: int) -> None:
    video = clips(9)
    asked: list[None] = []

    def count() -> bool:
        asked.append(None)
        return False

    expected = _latents.encode_video(theirs, video, slots=slots, should_stop=count)
    passes = 3 if slots == 1 else 2
    assert len(asked) == passes * (2 + len(theirs.encoder.down_blocks))
    for number in range(len(asked)):
        answers = iter([False] * number + [True])
        with pytest.raises(Cancelled):
            _latents.encode_video(
                theirs, video, slots=slots, should_stop=lambda answers=answers: next(answers)
            )
        assert next(answers, None) is None
    assert torch.equal(_latents.encode_video(theirs, video, slots=slots), expected)


class Shapes:
    """What the choice of slots looks at."""

    def __init__(self, base_dim: int, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.config = type("Config", (), {"base_dim": base_dim, "scale_factor_temporal": 4})


@pytest.mark.parametrize(
    ("base_dim", "dtype", "shape", "free", "slots"),
    [
        (96, torch.bfloat16, (1, 3, 81, 480, 832), 130e9, 2),
        (96, torch.bfloat16, (1, 3, 81, 480, 832), 10e9, 1),
        (96, torch.float32, (1, 3, 81, 480, 832), 130e9, 1),
        (96, torch.bfloat16, (1, 3, 1, 480, 832), 130e9, 1),
        (16, torch.float32, (1, 3, 17, 144, 256), 8e9, 4),
        (16, torch.float32, (16, 3, 17, 144, 256), 130e9, 4),
        (16, torch.float32, (1, 3, 17, 144, 256), 0, 1),
    ],
)
def test_the_slots_of_a_pass_follow_from_what_is_free(
    base_dim: int, dtype: torch.dtype, shape: tuple[int, ...], free: float, slots: int
) -> None:
    assert _wan_vae.slots_within(Shapes(base_dim, dtype), shape, int(free)) == slots


def test_a_gpu_takes_several_slots_and_a_cpu_or_tiles_one(
    theirs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeTensorMode():
        video = torch.empty(1, 3, 17, 32, 48, device="cuda:1")
    places: list[str] = []
    monkeypatch.setattr(_memory, "free", lambda place: places.append(place) or 10**9)
    assert _wan_vae.slots_at_once(theirs, video) == 4
    assert places == ["cuda:1"]
    assert _wan_vae.slots_at_once(theirs, clips(17)) == 1
    tiled = copy.deepcopy(theirs)
    tiled.enable_tiling()
    assert _wan_vae.slots_at_once(tiled, video) == 1


@pytest.mark.parametrize(("dtype", "quick"), [(torch.float32, False), (torch.bfloat16, True)])
@pytest.mark.parametrize("slots", [1, 4])
def test_a_pass_takes_no_more_than_the_choice_supposes(
    dtype: torch.dtype, quick: bool, slots: int
) -> None:
    shape = (1, 3, 17, 240, 416)
    config = {"base_dim": 96, "num_res_blocks": 1}
    found = vae_memory.counted(config, shape, dtype, slots, quick=quick)
    tensor = 96 * 4 * 240 * 416 * dtype.itemsize
    assert 0.6 * (7 + 5 * slots) * tensor < found <= (7 + 5 * slots) * tensor


def test_the_cards_say_what_one_slot_and_two_take() -> None:
    names = ("wan2.1-1.3b", "wan2.1-14b", "wan2.1-i2v-14b", "wan2.2-a14b")
    cards = [registry.card(name) for name in names]
    said = {(card.vae_working_bytes // 2, card.vae_pass_bytes) for card in cards}
    frames, size = 17, (480, 832)
    assert {(card.max_frames, card.input_size) for card in cards} == {(81, size)}
    longer = (81 - frames) * 3 * size[0] * size[1] * (4 + 2)
    found = [
        vae_memory.counted({}, (1, 3, frames, *size), torch.bfloat16, slots, quick=True) + longer
        for slots in (1, 2)
    ]
    assert [pytest.approx(bytes, rel=0.03) for bytes in found] == list(*said)
