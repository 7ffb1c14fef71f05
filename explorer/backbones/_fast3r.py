"""Features of Fast3R: frames of a clip are the views of one scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from explorer._typing import Float
from explorer.backbones._hooks import run_blocks
from explorer.backbones._latents import to_float16
from explorer.backbones._views import ViewModel, by_view


class Fast3RBackbone(ViewModel):
    """Encoder blocks, then decoder blocks, as `explorer.nets.fast3r.Fast3R` numbers them."""

    transformer: Any

    @property
    def blocks(self) -> Sequence[nn.Module]:
        found: Sequence[nn.Module] = self.transformer.blocks
        return found

    def read(
        self,
        images: Float[torch.Tensor, "1 S 3 H W"],
        *,
        layers: Sequence[int],
        tap: str,
        should_stop: Callable[[], bool],
    ) -> dict[int, np.ndarray]:
        views, blocks = images.shape[1], self.blocks
        readers = self.transformer.readouts
        if tap != "block":
            # before the rotation: the norm there is the identity
            name = {"query": "q_norm", "key": "k_norm"}[tap]
            readers = [block.get_submodule(f"attn.{name}") for block in blocks]

        def keep(output: torch.Tensor) -> np.ndarray:
            # the encoder has a sequence for each view, the decoder one for all of them
            tokens = by_view(output, views) if tap != "block" else output
            return to_float16(tokens.reshape(views, *self.card.token_grid, -1))

        return run_blocks(
            lambda: self.transformer((2.0 * images - 1.0).to(self.dtype), keep=()),
            blocks,
            layers=layers,
            keep=keep,
            readers=readers,
            should_stop=should_stop,
        )
