"""Block outputs of diffusers' LTX-Video transformer on noisy latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from explorer._typing import Float
from explorer.backbones._clip_latents import ClipLatentModel
from explorer.backbones._hooks import run_blocks
from explorer.backbones._latents import to_float16

FRAME_RATE = 25
"""The sampler's own: rotary positions count seconds, and a clip need not say how fast it is."""


class LTXBackbone(ClipLatentModel):
    """A VAE and a transformer of LTX-Video behind the one `extract`."""

    def latent_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.vae.latents_mean, self.vae.latents_std

    @torch.inference_mode()
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
        blocks = self.blocks
        readers = None
        if tap != "block":
            name = {"query": "norm_q", "key": "norm_k"}[tap]
            readers = [block.get_submodule(f"attn1.{name}") for block in blocks]
        slots, height, width = noisy.shape[2:]
        scale = self.vae.spatial_compression_ratio
        return run_blocks(
            lambda: self.transformer(
                # patches are single latents
                hidden_states=noisy.flatten(2).transpose(1, 2).to(self.dtype),
                encoder_hidden_states=self.prompt.to(self.dtype),
                timestep=torch.tensor([timestep], device=noisy.device),
                encoder_attention_mask=self.mask,
                num_frames=slots,
                height=height,
                width=width,
                rope_interpolation_scale=(
                    self.vae.temporal_compression_ratio / FRAME_RATE,
                    scale,
                    scale,
                ),
                return_dict=False,
            ),
            blocks,
            layers=layers,
            keep=lambda tokens: to_float16(tokens[0].unflatten(0, (slots, height, width))),
            readers=readers,
            should_stop=should_stop,
        )
