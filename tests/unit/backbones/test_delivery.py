"""Features on their way to host memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from explorer.backbones import _delivery, _latents, _wan, _wan_vae
from explorer.backbones._delivery import Delivery
from explorer.clip import Clip

CPU = torch.device("cpu")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_arrives_is_what_was_sent(device: str, dtype: torch.dtype) -> None:
    sent = {
        layer: torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(layer)).to(dtype)
        for layer in range(6)
    }
    delivery = Delivery(torch.device(device))
    found = delivery.receive({n: delivery.send(tensor.to(device)) for n, tensor in sent.items()})
    for layer, tensor in sent.items():
        np.testing.assert_array_equal(found[layer], tensor.half().numpy())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_huge_activations_arrive_finite(device: str, dtype: torch.dtype) -> None:
    delivery = Delivery(torch.device(device))
    huge = torch.tensor([1e6, -1e6, 65504.0, 1.0], dtype=dtype, device=device)
    assert delivery.receive({0: delivery.send(huge)})[0].tolist() == [65504, -65504, 65504, 1]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_the_pass_writes_later_does_not_arrive(device: str, dtype: torch.dtype) -> None:
    delivery = Delivery(torch.device(device))
    tokens = torch.ones(1000, dtype=dtype, device=device)
    parcel = delivery.send(tokens)
    tokens.zero_()
    assert delivery.receive({0: parcel})[0].min() == 1.0


def test_where_no_more_memory_can_be_locked_other_memory_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []
    empty = torch.empty

    def counted(shape: Any, *, dtype: torch.dtype, pin_memory: bool = False) -> torch.Tensor:
        asked.append(pin_memory)
        if pin_memory and len(asked) > 1:
            raise RuntimeError("no more")
        return empty(shape, dtype=dtype)

    monkeypatch.setattr(_delivery.torch, "empty", counted)
    delivery, values = Delivery(CPU), torch.ones(4, 5, dtype=torch.float16)
    for _ in range(3):
        assert delivery._host_memory(values).shape == (4, 5)
    assert asked == [True, True, False, False]


def test_no_more_than_a_share_of_a_pass_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[bool] = []
    empty = torch.empty

    def counted(shape: Any, *, dtype: torch.dtype, pin_memory: bool = False) -> torch.Tensor:
        locked.append(pin_memory)
        return empty(shape, dtype=dtype)

    monkeypatch.setattr(_delivery.torch, "empty", counted)
    monkeypatch.setattr(_delivery, "LOCKED_BYTES", 100)
    delivery, values = Delivery(CPU), torch.ones(4, 5, dtype=torch.float16)
    for _ in range(4):
        delivery._host_memory(values)
    assert locked == [True, True, False, False]


def test_another_layout_of_the_vae_gives_the_same_latents(
    tiny: _wan.WanBackbone, make_clip: Callable[..., Clip]
) -> None:
    video = _latents.to_video(make_clip(9).frames)
    expected = _latents.encode_video(tiny.vae, video)
    other = copy.deepcopy(tiny.vae)
    _wan_vae.channels_last(other)
    torch.testing.assert_close(_latents.encode_video(other, video), expected, atol=1e-5, rtol=1e-4)
