"""Compiled blocks: the same passes in fewer kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from explorer.errors import BackboneError


def compile_blocks(blocks: Sequence[nn.Module]) -> None:
    """Compile what each block computes; its own hooks, which read and end a pass, stay outside.

    The first pass of a shape compiles, for a minute or so; blocks of one kind share what they are
    compiled to. Values change by rounding, as fused operations round less often. A block that is
    read inside, for its queries or keys, runs uncompiled in that pass: compiled, it would not call
    the hook that reads them.
    """
    for block in blocks:
        vars(block)["forward"] = _compiled(block)


def _compiled(block: nn.Module) -> Any:
    import torch

    plain = block.forward
    fast = torch.compile(plain)
    parts = [part for part in block.modules() if part is not block]

    def forward(*inputs: Any, **named: Any) -> Any:
        if any(part._forward_hooks for part in parts):
            return plain(*inputs, **named)
        try:
            return fast(*inputs, **named)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            raise BackboneError(
                f"its blocks cannot be compiled here ({reason}): leave --compile out"
            ) from error

    return forward
