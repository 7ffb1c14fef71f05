"""Weights in eight bits: symmetric, with one scale for each output channel.

A matrix or kernel W becomes round(W / s) with s = max |W| / 127 over all but its first axis: the
error of a weight is at most s / 2, a 254th of the largest in its row. Vectors stay in float16.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

SCALE = "::scale"
"""Behind the name of a tensor: the name of its scales."""


def encode(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """int8 tensors with float32 scales (channels, 1, ...) beside them; vectors in float16.

    Args:
        state: float tensors by name, on any device.
    """
    found: dict[str, torch.Tensor] = {}
    for name, given in state.items():
        value = given.detach().to("cpu", torch.float32)
        if value.dim() < 2:
            found[name] = value.half()
            continue
        scale = value.abs().amax(dim=tuple(range(1, value.dim())), keepdim=True) / 127.0
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        found[name] = (value / scale).round().to(torch.int8)
        found[name + SCALE] = scale.contiguous()
    return found


def decode(stored: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """float32 tensors of what `encode` gave, or of plain ones.

    Raises:
        ValueError: an int8 tensor has no scales, or they do not fit it.
    """
    found: dict[str, torch.Tensor] = {}
    for name, value in stored.items():
        if name.endswith(SCALE):
            continue
        if value.dtype != torch.int8:
            found[name] = value.float()
            continue
        scale = stored.get(name + SCALE)
        expected = (value.shape[0], *(1 for _ in value.shape[1:]))
        if scale is None or tuple(scale.shape) != expected:
            shape = None if scale is None else tuple(scale.shape)
            raise ValueError(f"scales of {name} have shape {shape}, expected {expected}")
        found[name] = value.float() * scale
    return found
