"""Compiled blocks: what still reads them, and what is refused."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from explorer.backbones import loaded, registry
from explorer.backbones._compiled import compile_blocks
from explorer.backbones._hooks import run_blocks
from explorer.backbones._options import Target
from explorer.clip import clip_from_frames
from explorer.errors import BackboneError

TRACED = functools.partial(torch.compile, backend="eager")
"""Everything of compiling but the kernels, which need a C++ compiler and half a minute."""


class Half(nn.Module):
    """A block with a part that is read."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(x) / 2


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "compile", TRACED)
    return [Half().eval().requires_grad_(False) for _ in range(3)]


def through(blocks: list[nn.Module], layer: int, **options: Any) -> torch.Tensor:
    def forward() -> torch.Tensor:
        x = torch.ones(1, 3)
        for block in blocks:
            x = block(x)
        return x

    found: torch.Tensor = run_blocks(forward, blocks, layers=[layer], **options)[layer]
    return found


def test_hooks_read_and_end_a_compiled_pass(blocks: list[nn.Module]) -> None:
    expected = [through(blocks, layer) for layer in range(3)]
    compile_blocks(blocks)
    ran: list[int] = []
    handle = blocks[2].register_forward_pre_hook(lambda *_: ran.append(2))
    for layer, values in enumerate(expected):
        torch.testing.assert_close(through(blocks, layer), values)
    handle.remove()
    assert ran == [2]


def test_a_part_of_a_compiled_block_is_read_in_an_uncompiled_pass(blocks: list[nn.Module]) -> None:
    parts = [block.get_submodule("part") for block in blocks]
    expected = through(blocks, 1, readers=parts)
    compile_blocks(blocks)
    through(blocks, 1)  # compiled without the hook, it would not call it any more
    torch.testing.assert_close(through(blocks, 1, readers=parts), expected)


def test_what_cannot_be_compiled_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(graph: object, inputs: object) -> Any:
        raise OSError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=no_compiler))
    block = Half().eval()
    compile_blocks([block])
    with pytest.raises(BackboneError, match="cannot be compiled here .*: leave --compile out"):
        block(torch.ones(1, 3))


def test_a_compiled_model_says_so_and_is_another_than_the_plain_one(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[object] = []

    def counted(forward: object) -> Any:
        compiled.append(forward)
        return TRACED(forward)

    monkeypatch.setattr(torch, "compile", counted)
    registry.write_tiny("wan2.1-1.3b", tmp_path)
    target = Target("cpu", weights=tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), np.uint8)
    clip = clip_from_frames(frames, name="noise")
    plain = registry.load("wan2.1-1.3b", target=target)
    fast = registry.load("wan2.1-1.3b", target=Target("cpu", weights=tmp_path, compile=True))
    assert len(compiled) == len(plain.blocks)
    assert fast is not plain
    for tap in plain.card.taps:
        one, other = (
            model.extract(clip, layers=[1], sigma=0.3, tap=tap)[1] for model in (plain, fast)
        )
        np.testing.assert_allclose(one.values, other.values, atol=2e-3)
        assert other.provenance == {**one.provenance, "compiled": True}
    loaded.unload("wan2.1-1.3b")


def test_both_experts_are_compiled_as_they_are_read(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", TRACED)
    registry.write_tiny("wan2.2-a14b", tmp_path)
    model: Any = registry.load("wan2.2-a14b", target=Target("cpu", weights=tmp_path, compile=True))
    clip = clip_from_frames(np.zeros((1, 32, 48, 3), np.uint8), name="black")
    for sigma in (0.1, 0.99):
        found = model.extract(clip, layers=[0], sigma=sigma)[0]
        assert found.provenance["compiled"]
        assert all("forward" in vars(block) for block in model.blocks)
    loaded.unload("wan2.2-a14b")


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("rgb", Target(compile=True), "rgb has no blocks to compile"),
        ("toy-wan", Target("cpu", compile=True, offload=True), "--compile or --offload"),
    ],
)
def test_what_is_never_compiled(name: str, target: Target, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        registry.load(name, target=target)
