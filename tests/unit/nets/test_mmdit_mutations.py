"""Mistakes that the reference vectors of the transformer must notice."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest
import torch
from mmdit_vectors import FACTS, WIDTH, errors, outputs, tiny
from torch import nn

from explorer.nets import _mmdit_blocks, mmdit
from explorer.nets.mmdit import MMDiT
from explorer.nets.rope import Rotation


def _roll(name: str, by: int, dim: int = 0) -> Callable[[MMDiT], None]:
    """A mutation that moves rows (or columns) of all weights whose names match."""

    def mutate(model: MMDiT) -> None:
        matching = [value for key, value in model.named_parameters() if re.search(name, key)]
        assert matching
        for value in matching:
            if dim < value.ndim:
                value.copy_(value.roll(by, dim))

    return mutate


def _set(kind: type[nn.Module], within: str = "", **values: object) -> Callable[[MMDiT], None]:
    """A mutation that sets attributes of all modules of a class below a name."""

    def mutate(model: MMDiT) -> None:
        below = [module for name, module in model.named_modules() if name.startswith(within)]
        matching = [module for module in below if isinstance(module, kind)]
        assert matching
        for module in matching:
            for key, value in values.items():
                assert hasattr(module, key)
                setattr(module, key, value)

    return mutate


def _swap_shift_and_scale(name: str, parts: int) -> Callable[[MMDiT], None]:
    """A mutation that swaps rows of modulations that give `parts` vectors."""

    def mutate(model: MMDiT) -> None:
        for key, value in model.named_parameters():
            if re.search(name, key):
                chunks = list(value.chunk(parts))
                for i in range(0, parts, 3):
                    chunks[i], chunks[i + 1] = chunks[i + 1], chunks[i]
                value.copy_(torch.cat(chunks))

    return mutate


def _patch_before_channel(model: MMDiT) -> None:
    """(ph, pw, c) tokens instead of (c, ph, pw)."""
    for linear in (model.img_in, model.cond_in):
        weight = linear.weight
        weight.copy_(weight.view(WIDTH, 4, -1).transpose(1, 2).reshape(WIDTH, -1))


def _configure(**values: object) -> Callable[[MMDiT], None]:
    def mutate(model: MMDiT) -> None:
        model.config = dataclasses.replace(model.config, **values)

    return mutate


def _norm_after_rotation(model: MMDiT) -> None:
    for block in model.single_blocks:
        norm, block.norm = block.norm, _mmdit_blocks.QKNorm(24)
        block.attention.register_forward_pre_hook(
            lambda module, qkv, norm=norm: (norm.query_norm(qkv[0]), norm.key_norm(qkv[1]), qkv[2])
        )


MUTATIONS: dict[str, tuple[str, Callable[[MMDiT], None]]] = {
    "LayerNorm eps 1e-5": ("small.", _set(nn.LayerNorm, eps=1e-5)),
    "q/k norm eps 1e-5": ("small.", _set(_mmdit_blocks.RMSNorm, eps=1e-5)),
    "GELU with erf in double blocks": ("", _set(nn.GELU, "double", approximate="none")),
    "GELU with erf in single blocks": ("", _set(nn.GELU, "single", approximate="none")),
    "tokens (ph, pw, c)": ("", _patch_before_channel),
    "mask channel last": ("", _roll(r"^cond_in\.weight", 4, 1)),
    "sines before cosines": ("", _roll(r"^time_in\.in_layer\.weight", 128, 1)),
    "MLP input before v": ("", _roll(r"v_mlp", WIDTH)),
    "MLP before attention": ("", _roll(r"linear2\.weight", WIDTH, 1)),
    "MLP modulated first": ("", _roll(r"_mod\.lin", 3 * WIDTH)),
    "scale, shift in double blocks": ("", _swap_shift_and_scale(r"_mod\.lin", 6)),
    "scale, shift in single blocks": ("", _swap_shift_and_scale(r"\.modulation\.lin", 3)),
    "scale, shift at the end": ("", _swap_shift_and_scale(r"adaLN", 2)),
    "gate first in single blocks": ("", _roll(r"\.modulation\.lin", -WIDTH)),
    "q/k norm after rotation": ("", _norm_after_rotation),
    "timestep not multiplied": ("", _configure(timestep_factor=1)),
    "frequencies of base 100": ("", _configure(theta=100)),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_vectors_notice_a_wrong_order_or_eps(mutation: str) -> None:
    variant, mutate = MUTATIONS[mutation]
    model = tiny(variant)
    mutate(model)
    found = errors(outputs(model), variant)
    assert max(found.values()) > 2 * FACTS["tolerance"]["atol"]


def _interleaved(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    cos, sin = (part[:, : x.shape[-1] // 2] for part in rotation)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


@pytest.mark.parametrize(
    "mutation", ["interleaved pairs", "image ids from 1", "columns before rows"]
)
def test_the_vectors_notice_wrong_positions(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = mmdit.position_ids
    if mutation == "interleaved pairs":
        monkeypatch.setattr(_mmdit_blocks, "rotate_half", _interleaved)
    elif mutation == "image ids from 1":

        def shifted(text: int, *rest: object) -> torch.Tensor:
            out = ids(text, *rest)
            out[text:] += 1
            return out

        monkeypatch.setattr(mmdit, "position_ids", shifted)
    else:
        monkeypatch.setattr(mmdit, "position_ids", lambda *given: ids(*given)[:, [0, 2, 1]])
    assert errors(outputs(tiny()))["prediction"] > 3 * FACTS["tolerance"]["atol"]
