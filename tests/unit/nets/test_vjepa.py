from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from explorer.nets.vjepa import CHECKPOINT_PREFIXES, VideoViT, VideoViTConfig, sincos_3d

GOLDEN = Path(__file__).parents[2] / "golden"
FACTS = json.loads((GOLDEN / "vjepa1-tiny.json").read_text())
TINY = VideoViTConfig(size=64, frames=4, dim=64, depth=3, heads=4, uniform_power=False)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "vjepa1-tiny.safetensors")


def golden_model(golden: dict[str, torch.Tensor], *, small: bool = False) -> VideoViT:
    weights = {k.removeprefix("weight."): v.float() for k, v in golden.items() if k[:2] == "we"}
    if small:
        facts = FACTS["variants"]["small"]
        for name in weights:
            if any(re.search(one, name) for one in facts["weights_matching_any_regex"]):
                weights[name] = weights[name] * facts["multiply_by"]
    model = VideoViT(TINY)
    model.load_state_dict(weights)
    return model


def seen_by_hooks(model: VideoViT, video: torch.Tensor) -> list[torch.Tensor]:
    outputs: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        for block in model.blocks
    ]
    with torch.no_grad():
        model(video)
    for handle in handles:
        handle.remove()
    return outputs


@pytest.mark.parametrize("variant", ["", "small."])
def test_v_jepa_is_reproduced_from_its_own_weights(
    golden: dict[str, torch.Tensor], variant: str
) -> None:
    model = golden_model(golden, small=bool(variant))
    video, native = golden["input.video"].float(), golden["input.video_native"].float()
    with torch.no_grad():
        tokens, tokens_native = model(video), model(native)
        table = model.positions(model.grid(*video.shape[2:]))
    found = {
        "tokens": tokens,
        "tokens_native": tokens_native,
        "pos_embed_interpolated": table,
        "sincos_3d": sincos_3d(model.native_grid, 64, uniform_power=False),
        "sincos_3d_other_power": sincos_3d(model.native_grid, 64, uniform_power=True),
        **{f"block.{i}": x for i, x in enumerate(seen_by_hooks(model, video))},
    }
    expected = {
        name.removeprefix(f"output.{variant}"): value
        for name, value in golden.items()
        if name.startswith(f"output.{variant}") and ("small" in name) == bool(variant)
    }
    assert len(expected) == (2 if variant else 8)
    for name, value in expected.items():
        error = ((found[name] - value).abs().max() / value.abs().mean()).item()
        assert error < FACTS["tolerance"]["atol"], name


def test_names_and_shapes_of_vit_h_load_strictly() -> None:
    published = json.loads((GOLDEN / "vjepa1-vith16-384-names.json").read_text())["tensors"]
    with torch.device("meta"):
        model = VideoViT(VideoViTConfig())
    state = {name: torch.empty(shape, device="meta") for name, shape in published.items()}
    model.load_state_dict(state, strict=True, assign=True)
    assert "".join(CHECKPOINT_PREFIXES) == "module.backbone."


def test_the_norm_that_the_file_holds_is_not_applied(golden: dict[str, torch.Tensor]) -> None:
    model = golden_model(golden)
    video = golden["input.video"].float()
    with torch.no_grad():
        before = model(video)
        model.norm.weight.zero_()
        assert torch.equal(model(video), before)


@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 3, 5), (3, 4, 4), (5, 7, 9), (2, 30, 52)])
def test_positions_are_sampled_linearly_along_each_axis(grid: tuple[int, int, int]) -> None:
    model = VideoViT(TINY)
    expected = model.pos_embed.detach().reshape(2, 4, 4, 64).double()
    for axis, (old, new) in enumerate(zip((2, 4, 4), grid, strict=True)):
        place = ((torch.arange(new).double() + 0.5) * old / new - 0.5).clamp(0, old - 1)
        weights = (1 - (place[:, None] - torch.arange(old)).abs()).clamp(min=0)
        expected = torch.tensordot(weights, expected, dims=([1], [axis])).movedim(0, axis)
    found = model.positions(grid).detach()
    torch.testing.assert_close(found, expected.reshape(1, -1, 64).float())


def test_explicit_factors_and_sizes_sample_positions_at_the_same_places() -> None:
    model = VideoViT(TINY)
    box = model.pos_embed.detach().reshape(1, 2, 4, 4, 64).permute(0, 4, 1, 2, 3)
    by_factor = F.interpolate(box, scale_factor=(1.5, 0.75, 1.25), mode="trilinear")
    found = model.positions((3, 3, 5)).detach()
    torch.testing.assert_close(found, by_factor.flatten(2).transpose(1, 2))


def test_clips_of_odd_grids_and_portrait_clips_become_tokens() -> None:
    model = VideoViT(TINY)
    for frames, height, width in ((2, 16, 48), (6, 80, 48), (10, 112, 16)):
        with torch.no_grad():
            tokens = model(torch.zeros(1, 3, frames, height, width))
        assert tokens.shape == (1, frames // 2 * (height // 16) * (width // 16), 64)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 32, 32), (4, 40, 32), (4, 32, 33), (0, 16, 16)])
def test_a_clip_that_is_not_made_of_tubelets_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="boxes of 2 frames and 16x16 pixels"):
        VideoViT(TINY)(torch.zeros(1, 3, *shape))


def test_an_exception_in_a_hook_ends_the_pass(golden: dict[str, torch.Tensor]) -> None:
    model = golden_model(golden)
    run: list[int] = []

    def hook(layer: int) -> None:
        run.append(layer)
        if layer == 1:
            raise KeyError("enough")

    for layer, block in enumerate(model.blocks):
        block.register_forward_hook(lambda module, inputs, output, layer=layer: hook(layer))
    with pytest.raises(KeyError, match="enough"):
        model(golden["input.video"].float())
    assert run == [0, 1]


def test_hooks_read_the_queries_and_keys_of_a_block(golden: dict[str, torch.Tensor]) -> None:
    model = golden_model(golden)
    block = model.blocks[2]
    seen: dict[str, torch.Tensor] = {}
    block.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    block.attn.product.register_forward_pre_hook(
        lambda module, inputs: seen.update(zip("qkv", inputs, strict=True))
    )
    with torch.no_grad():
        model(golden["input.video"].float())
        qkv = block.attn.qkv(block.norm1(seen["x"])).view(2, 30, 3, 4, 16)
    for number, name in enumerate("qkv"):
        assert torch.equal(seen[name], qkv[:, :, number].transpose(1, 2))
