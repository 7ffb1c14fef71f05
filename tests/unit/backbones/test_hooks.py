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


def test_a_wanted_block_that_does_not_run_is_no_shorter_answer(blocks: list[Counting]) -> None:
    with pytest.raises(RuntimeError, match=r"blocks \[3\] were not run"):
        run_blocks(lambda: run(blocks[:3]), blocks, layers=[1, 3], keep=torch.clone)
    assert hooks_of(blocks) == 0


class Visiting(nn.Module):
    """Blocks that are brought in one after the other, each with a reading inside."""

    def __init__(self, blocks: list[Counting]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(block, Counting()) for block in blocks)
        self.norm = Counting()

    def forward(self) -> torch.Tensor:
        x = torch.zeros(2)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


@pytest.mark.parametrize("read", ["output", "inside", "norm after the last"])
@pytest.mark.parametrize("last", [1, 4])
def test_blocks_that_are_brought_in_end_their_pass_and_none_stays(
    blocks: list[Counting], last: int, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.hooks import apply_group_offloading
    from diffusers.hooks.group_offloading import ModuleGroup

    present: set[int] = set()
    monkeypatch.setattr(ModuleGroup, "onload_", lambda group: present.add(id(group.modules[0])))
    monkeypatch.setattr(ModuleGroup, "offload_", lambda g: present.discard(id(g.modules[0])))
    network, cpu = Visiting(blocks), torch.device("cpu")
    apply_group_offloading(
        network, onload_device=cpu, offload_type="block_level", num_blocks_per_group=1
    )
    visitors = list(network.blocks)
    readers = {
        "output": None,
        "inside": [block[0] for block in visitors],
        "norm after the last": [*visitors[:4], network.norm],
    }[read]
    for turn in (1, 2):
        kept = run_blocks(
            network,
            visitors,
            layers=[0, last],
            keep=torch.clone,
            readers=readers,
        )
        first = 1 if read == "inside" else 2
        after = int(read == "norm after the last" and last == 4)
        expected = {0: first, last: 2 * last + first + after}
        assert {layer: float(value[0]) for layer, value in kept.items()} == expected
        assert [block.runs for block in blocks] == [turn if n <= last else 0 for n in range(5)]
        assert not present & set(map(id, visitors))
