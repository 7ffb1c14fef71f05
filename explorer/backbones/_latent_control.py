"""The control that shows a probe what the transformer is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from einops import rearrange

from explorer._typing import Float
from explorer.backbones._latents import LatentModel, compute_provenance, to_float16
from explorer.backbones._position import position_channels
from explorer.backbones._wan_types import Vae
from explorer.backbones.base import BackboneCard, Hashes


def latent_patches(
    noisy: Float[torch.Tensor, "B z S hl wl"], grid: tuple[int, int]
) -> Float[torch.Tensor, "B S h w C"]:
    """The latents under each token of the grid, channels in the order latent, row, column."""
    rows, columns = grid
    patches: torch.Tensor = rearrange(
        noisy, "b z s (h p) (w q) -> b s h w (z p q)", h=rows, w=columns
    )
    return patches


class LatentControl(LatentModel):
    """Noisy VAE latents, one patch of them to a token, beside the position."""

    def __init__(self, card: BackboneCard, vae: Vae, *, hashes: Hashes, trained: bool) -> None:
        super().__init__(
            card,
            vae,
            weights_hash=hashes.weights,
            encoder_hash=hashes.encoder,
            provenance=compute_provenance(vae.device, vae.dtype, trained=trained),
        )

    def read(
        self,
        noisy: Float[torch.Tensor, "1 z S hl wl"],
        timestep: float,
        *,
        layers: Sequence[int],
        slot_frames: np.ndarray,
        tap: str,
        should_stop: Callable[[], bool],
    ) -> dict[int, np.ndarray]:
        patches = latent_patches(noisy, self.card.token_grid)[0]
        position = position_channels(
            slot_frames, self.card.token_grid, max_frames=self.card.max_frames
        )
        return {0: np.concatenate([to_float16(patches), position.astype(np.float16)], axis=-1)}
