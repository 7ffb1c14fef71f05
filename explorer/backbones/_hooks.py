"""Reading block outputs out of a model that was not written for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from explorer.backbones.base import never, stop_check


class _PassedLastBlock(Exception):
    """Ends a forward pass from inside; nobody outside this module sees it."""


def run_blocks(
    forward: Callable[[], object],
    blocks: Sequence[nn.Module],
    *,
    layers: Sequence[int],
    keep: Callable[[torch.Tensor], Any],
    should_stop: Callable[[], bool] = never,
) -> dict[int, Any]:
    """Call `forward` and keep what `keep` makes of the outputs of the wanted blocks.

    The pass ends with an exception inside the hook of the last wanted block, so that later blocks
    are never run. Only wanted outputs are held: `keep` decides in which form.

    Args:
        forward: runs the whole model once.
        blocks: the model's blocks, in the order in which they run; each returns one tensor.
        layers: 0-based wanted blocks.
        keep: called with a wanted block's output, at once.
        should_stop: asked before each block.

    Raises:
        Cancelled: `should_stop` became true.
    """
    last = max(layers)
    kept: dict[int, Any] = {}

    def before(module: nn.Module, inputs: Any) -> None:
        stop_check(should_stop)

    def after(layer: int) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            kept[layer] = keep(output)
            if layer == last:
                raise _PassedLastBlock

        return hook

    handles = [block.register_forward_pre_hook(before) for block in blocks[: last + 1]]
    handles += [blocks[layer].register_forward_hook(after(layer)) for layer in set(layers)]
    try:
        forward()
    except _PassedLastBlock:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return {layer: kept[layer] for layer in sorted(kept)}


@contextmanager
def checked_before(module: nn.Module, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Ask `should_stop` before every call of `module`.

    Raises:
        Cancelled: `should_stop` became true.
    """
    handle = module.register_forward_pre_hook(lambda module, inputs: stop_check(should_stop))
    try:
        yield
    finally:
        handle.remove()
