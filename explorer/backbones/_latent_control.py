"""The control that shows a probe what the transformer is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from explorer._typing import Float
from explorer.backbones._latents import LatentModel, compute_provenance, to_float16
from explorer.backbones._position import OCTAVES, position_channels
from explorer.backbones._wan_types import Vae
from explorer.backbones.base import BackboneCard, hash_arrays


class LatentControl(LatentModel):
    """Noisy VAE latents, one patch of them to a token, beside the position."""

    def __init__(self, card: BackboneCard, vae: Vae, *, encoder_hash: str, trained: bool) -> None:
        recipe = f"latent patches, position octaves {OCTAVES}, VAE {encoder_hash}"
        super().__init__(
            card,
            vae,
            weights_hash=hash_arrays([], recipe),
            encoder_hash=encoder_hash,
            provenance=compute_provenance(vae.device, vae.dtype, trained=trained),
        )

    def read(
        self,
        noisy: Float[torch.Tensor, "1 z S hl wl"],
        timestep: float,
        *,
        layers: Sequence[int],
        slot_frames: np.ndarray,
        should_stop: Callable[[], bool],
    ) -> dict[int, np.ndarray]:
        rows, columns = self.card.token_grid
        patches = (
            noisy[0]
            .unflatten(-1, (columns, -1))
            .unflatten(-3, (rows, -1))  # z S rows p columns q
            .permute(1, 2, 4, 0, 3, 5)
            .flatten(3)
        )
        position = position_channels(
            slot_frames, self.card.token_grid, max_frames=self.card.max_frames
        )
        return {0: np.concatenate([to_float16(patches), position.astype(np.float16)], axis=-1)}
