from __future__ import annotations

import pytest
import torch

from explorer.nets.attention import AlternatingAttention, Attention, Block
from explorer.nets.camera_head import CameraHead
from explorer.nets.dpt import DPTHead, resize, uv_embedding


def test_attention_equals_softmax_of_scaled_products() -> None:
    torch.manual_seed(0)
    attention = Attention(12, 3, qk_norm=True)
    x = torch.randn(2, 5, 12)
    q, k, v = attention.qkv(x).view(2, 5, 3, 3, 4).permute(2, 0, 3, 1, 4)
    q, k = attention.q_norm(q), attention.k_norm(k)
    weights = (q @ k.transpose(-1, -2) / 4**0.5).softmax(-1)
    expected = attention.proj((weights @ v).transpose(1, 2).reshape(2, 5, 12))
    torch.testing.assert_close(attention(x), expected)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        Attention(10, 3, qk_norm=False)


def test_layer_scale_zero_makes_a_block_the_identity() -> None:
    block = Block(8, 2, layer_scale=0.0)
    x = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x)


def test_only_the_first_frame_is_marked() -> None:
    torch.manual_seed(0)
    trunk = AlternatingAttention(16, 2, pairs=2, token_std=1.0, layer_scale=1.0)
    one = torch.randn(1, 1, 6, 16)
    taps = trunk.alternate(one.expand(1, 4, 6, 16), (2, 3))
    assert [tuple(tap.shape) for tap in taps] == [(1, 4, 11, 32)] * 2
    torch.testing.assert_close(taps[-1][:, 1], taps[-1][:, 3])
    assert (taps[-1][:, 0] - taps[-1][:, 1]).abs().max() > 1e-2


def test_global_blocks_carry_information_between_frames_and_frame_blocks_do_not() -> None:
    torch.manual_seed(0)
    trunk = AlternatingAttention(16, 2, pairs=1, layer_scale=1.0)
    frames = torch.randn(1, 2, 6, 16)
    changed = frames.clone()
    changed[:, 1] = torch.randn(6, 16)
    before, after = trunk.alternate(frames, (2, 3))[0], trunk.alternate(changed, (2, 3))[0]
    torch.testing.assert_close(before[:, 0, :, :16], after[:, 0, :, :16])
    assert (before[:, 0, :, 16:] - after[:, 0, :, 16:]).abs().max() > 1e-3


def test_one_frame_is_enough() -> None:
    trunk = AlternatingAttention(16, 2, pairs=1)
    assert trunk.alternate(torch.zeros(2, 1, 6, 16), (2, 3))[0].shape == (2, 1, 11, 32)


def test_the_position_map_is_odd_in_sines_and_even_in_cosines() -> None:
    table = uv_embedding((5, 7), 8, 7 / 5)
    torch.testing.assert_close(table[:2], -table[:2].flip(2))
    torch.testing.assert_close(table[2:4], table[2:4].flip(2))
    torch.testing.assert_close(table[4:6], -table[4:6].flip(1))
    assert (table[:4] == table[:4, :1]).all()


def test_the_position_map_needs_channels_in_fours() -> None:
    with pytest.raises(ValueError, match="4k channels"):
        uv_embedding((2, 2), 6, 1.0)


def test_resizing_keeps_the_corners() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    large = resize(x, (7, 9))
    assert large[0, 0, 0, 0] == 0
    assert large[0, 0, -1, -1] == 11
    assert resize(x, (3, 4)) is x


@pytest.mark.parametrize("shape", [(18, 32, 36, 64), (5, 7, 11, 23), (4, 6, 2, 1), (1, 1, 3, 5)])
def test_a_compiled_resize_is_two_products_with_the_same_numbers_and_gradients(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *shape[:2], requires_grad=True)
    upstream = torch.randn(2, 3, *shape[2:])
    expected = resize(x, shape[2:])
    (gradient,) = torch.autograd.grad(expected, x, upstream)
    monkeypatch.setattr(torch.nn.functional, "interpolate", None)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = resize(x, shape[2:])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    (again,) = torch.autograd.grad(found, x, upstream)
    torch.testing.assert_close(again, gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("factors", [(4.0, 2.0, 1.0, 0.5), (2.0, 1.0, 1.0, 0.5)])
def test_the_dense_head_gives_the_asked_size_for_any_grid(factors: tuple[float, ...]) -> None:
    head = DPTHead(8, 3, dim=8, stages=(4, 4, 8, 8), hidden=4, factors=factors)
    maps = [torch.zeros(2, 15, 8)] * 4
    assert head(maps, (3, 5), (13, 22)).shape == (2, 3, 13, 22)


def test_an_untrained_dense_head_can_start_near_given_values() -> None:
    torch.manual_seed(0)
    head = DPTHead(8, 2, dim=8, stages=(4, 4, 8, 8), hidden=4)
    head.start_at((3.0, -2.0))
    out = head([torch.randn(1, 6, 8)] * 4, (2, 3), (8, 12))
    assert (out[:, 0] - 3).abs().max() < 0.3
    assert (out[:, 1] + 2).abs().max() < 0.3


def test_camera_passes_exchange_values_but_no_gradients() -> None:
    torch.manual_seed(0)
    head = CameraHead(16, dim=8, depth=1, heads=2, iterations=2, start=(0.0,) * 7 + (1.0, 1.0))
    first, second = head(torch.randn(1, 3, 16))
    assert (first - second).abs().max() > 1e-4
    assert head.empty_pose_tokens.grad is None
    second.sum().backward()
    # the empty token enters the first pass alone, which the second must not train
    assert head.empty_pose_tokens.grad is None


def test_a_field_of_view_is_never_negative() -> None:
    torch.manual_seed(0)
    head = CameraHead(16, depth=1, heads=2, start=(0.0,) * 7 + (-5.0, -5.0))
    for encoding in head(torch.randn(1, 2, 16)):
        assert (encoding[..., 7:] == 0).all()
