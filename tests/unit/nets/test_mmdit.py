from __future__ import annotations

import json

import pytest
import torch
from mmdit_vectors import FACTS, GOLDEN, GRID, TENSORS, TEXT, TINY, errors, outputs, run, tiny
from torch import nn

from explorer.backbones._hooks import run_blocks
from explorer.nets import mmdit
from explorer.nets.mmdit import MMDiT, MMDiTConfig, first_frame_condition, pack, unpack


@pytest.mark.parametrize("variant", ["", "small."])
def test_the_network_and_each_block_are_reproduced_from_their_own_weights(variant: str) -> None:
    for name, error in errors(outputs(tiny(variant)), variant).items():
        assert error < FACTS["tolerance"]["atol"], name


def test_names_and_shapes_of_the_released_model_load_strictly() -> None:
    published = json.loads((GOLDEN / "opensora-v2-names.json").read_text())
    with torch.device("meta"):
        model = MMDiT(MMDiTConfig())
        state = {name: torch.empty(shape) for name, shape in published["tensors"].items()}
    model.load_state_dict(state, strict=True, assign=True)
    assert sum(weight.numel() for weight in model.parameters()) == published["parameters"]
    assert len(model.blocks) == 19 + 38
    assert not list(model.buffers())


def test_latents_survive_packing_in_the_order_channel_row_column() -> None:
    latents = torch.arange(2 * 3 * 2 * 4 * 6.0).view(2, 3, 2, 4, 6)
    tokens = pack(latents)
    assert tokens.shape == (2, 2 * 2 * 3, 12)
    assert torch.equal(unpack(tokens, (2, 2, 3)), latents)
    # frame 1, patch row 1, patch column 2: token 6 + 3 + 2
    patch = latents[1, :, 1, 2:4, 4:6]
    assert torch.equal(tokens[1, 11], patch.flatten())


def test_the_condition_of_the_vectors_marks_the_first_latent_frame() -> None:
    given = TENSORS["input.cond"]
    assert torch.equal(first_frame_condition(given[:, 1:, :1], 3), given)
    assert torch.equal(first_frame_condition(given[:, 1:, :1], 1), given[:, :, :1])


def test_text_sits_at_the_origin_and_image_tokens_on_their_grid() -> None:
    ids = mmdit.position_ids(2, GRID)
    assert ids.shape == (2 + 18, 3)
    assert not ids[:3].any()
    assert ids[2 + 1].tolist() == [0, 0, 1]
    assert ids[2 + 3].tolist() == [0, 1, 0]
    assert ids[-1].tolist() == [2, 1, 2]


def test_time_is_shifted_as_for_129_frames_of_848x480() -> None:
    model = tiny()
    grid = model.token_grid(torch.zeros(1, 4, 33, 60, 106))
    assert grid == (33, 30, 53)
    level = mmdit.schedule_of(grid).at_time(0.25)
    assert level.timestep == pytest.approx(0.7644442, abs=1e-6)


def test_hooks_see_every_block_and_the_pass_ends_with_the_last_one_wanted() -> None:
    model = tiny()
    called: list[int] = []
    for index, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda module, inputs, index=index: called.append(index))
    full = run_blocks(lambda: run(model), model.blocks, layers=range(5), keep=torch.clone)
    assert called == [0, 1, 2, 3, 4]
    for index in range(TINY.depth):
        expected = TENSORS[f"output.double.{index}.img"]
        torch.testing.assert_close(full[index][:, TEXT:], expected, atol=1e-4, rtol=0)
    for index in range(TINY.depth_single_blocks):
        expected = TENSORS[f"output.single.{index}"]
        torch.testing.assert_close(full[TINY.depth + index], expected, atol=1e-4, rtol=0)
    for layer in range(5):
        called.clear()
        alone = run_blocks(lambda: run(model), model.blocks, layers=[layer], keep=torch.clone)
        assert called == list(range(layer + 1))
        assert torch.equal(alone[layer], full[layer])


def _turned(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """(N, heads, d) turned as complex numbers, channel i the real part to i + d / 2."""
    angles = torch.cat(
        [
            ids[:, axis, None].double() * 10000.0 ** (-2 * torch.arange(size // 2).double() / size)
            for axis, size in enumerate(TINY.axes_dim)
        ],
        dim=1,
    )
    half = x.shape[-1] // 2
    turned = torch.complex(x[..., :half].double(), x[..., half:].double())
    turned = turned * torch.exp(1j * angles)[:, None]
    return torch.cat([turned.real, turned.imag], dim=-1).float()


@pytest.mark.parametrize("index", [0, 3])
def test_queries_and_keys_are_read_after_norm_and_rotation(index: int) -> None:
    model = tiny()
    block = model.blocks[index]
    seen: list[tuple[torch.Tensor, ...]] = []
    inner: list[torch.Tensor] = []
    block.attention.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    # a double-stream block projects the text's queries, then the image's
    parts = [block] if index >= TINY.depth else [block.txt_attn, block.img_attn]
    for part in parts:
        part.q_proj.register_forward_hook(lambda module, inputs, out: inner.append(out[0]))
    run(model)
    (q, k, v), ids = seen[0], mmdit.position_ids(TEXT, GRID)
    assert q.shape == k.shape == v.shape == (1, TINY.num_heads, TEXT + 18, 24)
    expected = []
    for part, projected in zip(parts, inner, strict=True):
        heads = projected.unflatten(-1, (TINY.num_heads, -1))
        rms = (heads.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        expected.append(heads / rms * part.norm.query_norm.scale)
    turned = _turned(torch.cat(expected), ids).transpose(0, 1)[None]
    torch.testing.assert_close(q, turned, atol=1e-5, rtol=1e-5)


def test_an_exception_from_a_hook_on_attention_ends_the_pass() -> None:
    model = tiny()
    ran: list[int] = []

    def stop(module: nn.Module, inputs: tuple) -> None:
        raise KeyboardInterrupt

    for index, block in enumerate(model.blocks):
        block.register_forward_hook(lambda module, inputs, out, index=index: ran.append(index))
    model.blocks[3].attention.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        run(model)
    assert ran == [0, 1, 2]


def test_bfloat16_stays_near_float32() -> None:
    expected = run(tiny())
    out = run(tiny().to(torch.bfloat16), torch.bfloat16)
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).abs().mean() < 0.02 * expected.abs().mean()


def test_clips_of_one_batch_do_not_meet() -> None:
    model = tiny()
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    noisy, condition = noise(2, 4, 1, 2, 4), noise(2, 5, 1, 2, 4)
    text, pooled, timestep = noise(2, 3, 40), noise(2, 24), torch.tensor([0.2, 0.9])
    both = model(noisy, timestep, text=text, pooled=pooled, condition=condition)
    for i in (slice(0, 1), slice(1, 2)):
        one = model(noisy[i], timestep[i], text=text[i], pooled=pooled[i], condition=condition[i])
        torch.testing.assert_close(both[i], one)


def test_latents_that_are_not_made_of_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="patches of 2"):
        pack(torch.zeros(1, 4, 1, 4, 5))


def test_variants_that_were_not_released_are_refused() -> None:
    for key in ("guidance_embed", "fused_qkv"):
        with pytest.raises(ValueError, match=key):
            MMDiTConfig.from_dict({**FACTS["config"], key: True})
    with pytest.raises(TypeError, match="hidden"):
        MMDiTConfig.from_dict({"hidden": 3})


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="5 heads"):
        MMDiTConfig(num_heads=5)
    with pytest.raises(ValueError, match="add up to 128"):
        MMDiTConfig(axes_dim=(16, 56, 58))
    with pytest.raises(ValueError, match="must be even"):
        MMDiTConfig(axes_dim=(15, 57, 56))
    with pytest.raises(ValueError, match="in_channels 62"):
        MMDiTConfig(in_channels=62)
