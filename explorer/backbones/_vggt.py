"""Features of VGGT's aggregator: frames of a clip are the images of one scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn

from explorer._typing import Float
from explorer.backbones._hooks import checked_before, run_blocks
from explorer.backbones._latents import to_float16
from explorer.backbones._views import ViewModel, by_view


class VGGTBackbone(ViewModel):
    """Layer k is pair k: the output of its frame block beside that of its global block."""

    transformer: Any

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.transformer.global_blocks)

    def read(
        self,
        images: Float[torch.Tensor, "1 S 3 H W"],
        *,
        layers: Sequence[int],
        tap: str,
        should_stop: Callable[[], bool],
    ) -> dict[int, np.ndarray]:
        network, blocks, views = self.transformer, self.blocks, images.shape[1]
        within: list[torch.Tensor] = []
        readers = None
        if tap != "block":
            name = {"query": "q_norm", "key": "k_norm"}[tap]
            readers = [block.get_submodule(f"attn.{name}") for block in blocks]

        def before(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            within[:] = [output]

        def keep(output: torch.Tensor) -> np.ndarray:
            if tap == "block":
                across = output.reshape(within[0].shape)
                tokens = torch.cat([within[0], across], dim=-1)
            else:
                tokens = by_view(output, views)
            patches = tokens[:, network.special :]
            return to_float16(patches.reshape(views, *self.card.token_grid, -1))

        with ExitStack() as stack:
            for block in [*network.patch_embed.blocks, *network.frame_blocks]:
                stack.enter_context(checked_before(block, should_stop))
            for layer in set(layers) if tap == "block" else ():
                handle = network.frame_blocks[layer].register_forward_hook(before)
                stack.callback(handle.remove)
            return run_blocks(
                lambda: network(images, keep=()),
                blocks,
                layers=layers,
                keep=keep,
                readers=readers,
                should_stop=should_stop,
            )
