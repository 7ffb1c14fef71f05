"""Reading block outputs out of a model that was not written for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from explorer.backbones.base import never, stop_check


class _PassedLastBlock(Exception):
    """Ends a forward pass from inside; nobody outside this module sees it."""


def run_blocks(
    forward: Callable[[], object],
    blocks: Sequence[nn.Module],
    *,
    layers: Sequence[int],
    keep: Callable[[Any], Any] | None = None,
    keep_at: Callable[[int, Any], Any] | None = None,
    readers: Sequence[nn.Module] | None = None,
    should_stop: Callable[[], bool] = never,
) -> dict[int, Any]:
    """Call `forward` and keep what `keep` makes of the outputs of the wanted blocks.

    The pass ends with an exception inside a hook on what is read last, so that nothing after it is
    run. Only wanted outputs are held: `keep` decides in which form. A block that is brought to the
    device for its turn is let end, since it goes back only then.

    Args:
        forward: runs the whole model once.
        blocks: the model's blocks, in the order in which they run.
        layers: 0-based wanted blocks.
        keep: called with what a wanted block returned, at once; by default as it is.
        keep_at: the same, told the layer first, instead of `keep`.
        readers: one module for each block whose output is kept instead of the block's: inside it,
            or after it.
        should_stop: asked before each block.

    Raises:
        Cancelled: `should_stop` became true.
        RuntimeError: a wanted block was not run.
    """
    last = max(layers)
    read = blocks if readers is None else readers
    visits = hasattr(blocks[last], "_diffusers_hook")
    inside = any(part is read[last] for part in blocks[last].modules())
    end = blocks[last] if visits and inside else read[last]
    kept: dict[int, Any] = {}

    def before(module: nn.Module, inputs: Any) -> None:
        stop_check(should_stop)

    def after(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if keep_at is not None:
                output = keep_at(layer, output)
            kept[layer] = output if keep is None else keep(output)

        return hook

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        raise _PassedLastBlock

    handles = [block.register_forward_pre_hook(before) for block in blocks[: last + 1]]
    handles += [read[layer].register_forward_hook(after(layer)) for layer in set(layers)]
    handles.append(end.register_forward_hook(leave))
    try:
        forward()
    except _PassedLastBlock:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if kept.keys() != set(layers):
        raise RuntimeError(f"blocks {sorted(set(layers) - kept.keys())} were not run")
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
