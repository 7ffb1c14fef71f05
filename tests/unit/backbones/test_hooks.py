from __future__ import annotations

import pytest
import torch
from torch import nn

from explorer.backbones._hooks import checked_before, run_blocks
from explorer.errors import Cancelled


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return x + 1


@pytest.fixture
def blocks() -> list[Counting]:
    return [Counting() for _ in range(5)]


def run(blocks: list[Counting]) -> torch.Tensor:
    x = torch.zeros(2)
    for block in blocks:
        x = block(x)
    return x


def hooks_of(blocks: list[Counting]) -> int:
    return sum(len(b._forward_hooks) + len(b._forward_pre_hooks) for b in blocks)


def test_the_pass_ends_after_the_last_wanted_block(blocks: list[Counting]) -> None:
    kept = run_blocks(lambda: run(blocks), blocks, layers=[2, 0], keep=torch.clone)
    assert [block.runs for block in blocks] == [1, 1, 1, 0, 0]
    assert {layer: float(value[0]) for layer, value in kept.items()} == {0: 1.0, 2: 3.0}


def test_unwanted_outputs_are_never_handed_over(blocks: list[Counting]) -> None:
    seen: list[float] = []
    run_blocks(lambda: run(blocks), blocks, layers=[3, 1], keep=lambda x: seen.append(float(x[0])))
    assert seen == [2.0, 4.0]


@pytest.mark.parametrize("asked", [0, 1, 3])
def test_a_stop_is_seen_before_each_block(blocks: list[Counting], asked: int) -> None:
    answers = iter([False] * asked + [True])
    with pytest.raises(Cancelled):
        run_blocks(
            lambda: run(blocks),
            blocks,
            layers=[4],
            keep=torch.clone,
            should_stop=lambda: next(answers),
        )
    assert sum(block.runs for block in blocks) == asked


def test_no_hook_stays_behind_after_a_pass_a_stop_or_an_error(blocks: list[Counting]) -> None:
    run_blocks(lambda: run(blocks), blocks, layers=[1], keep=torch.clone)
    with pytest.raises(Cancelled):
        run_blocks(
            lambda: run(blocks), blocks, layers=[1], keep=torch.clone, should_stop=lambda: True
        )
    with pytest.raises(ZeroDivisionError):
        run_blocks(lambda: run(blocks), blocks, layers=[1], keep=lambda x: 1 / 0)
    with pytest.raises(Cancelled), checked_before(blocks[0], lambda: True):
        run(blocks)
    assert hooks_of(blocks) == 0


@pytest.mark.parametrize("last", [1, 4])
def test_blocks_that_are_brought_in_one_after_the_other_end_their_pass_as_well(
    blocks: list[Counting], last: int
) -> None:
    from diffusers.hooks import apply_group_offloading

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(blocks)

        def forward(self) -> torch.Tensor:
            return run(blocks)

    network = Network()
    cpu = torch.device("cpu")
    apply_group_offloading(
        network, onload_device=cpu, offload_type="block_level", num_blocks_per_group=1
    )
    for turn in (1, 2):
        kept = run_blocks(network, blocks, layers=[0, last], keep=torch.clone)
        assert {layer: float(value[0]) for layer, value in kept.items()} == {0: 1, last: last + 1}
        assert [block.runs for block in blocks] == [turn if n <= last else 0 for n in range(5)]
