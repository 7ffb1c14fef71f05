"""Block outputs of diffusers' Mochi transformer on noisy latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from explorer._typing import Float
from explorer.backbones._clip_latents import ClipLatentModel
from explorer.backbones._hooks import run_blocks
from explorer.backbones._latents import to_float16


def rotations(
    frequencies: Float[torch.Tensor, "3 A D"], positions: Float[torch.Tensor, "N 3"]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines (N, A, D) of the angles positions @ frequencies, in float32."""
    angles = torch.einsum("nd,dhf->nhf", positions.float(), frequencies.float())
    return angles.cos(), angles.sin()


class MochiBackbone(ClipLatentModel):
    """A VAE and a transformer of Mochi behind the one `extract`."""

    def __init__(self, *parts: Any, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        # diffusers asks for autocast to float32 here, which warns on a CPU in every pass
        self.transformer.rope._create_rope = rotations
        # Its encoder takes sines of pixels times 2 pi 128: rounded to bfloat16 before that, they
        # would be off by up to a quarter of a turn.
        self.vae.encoder.proj_in.register_forward_pre_hook(
            lambda module, inputs: tuple(each.to(module.weight.dtype) for each in inputs)
        )

    @property
    def pixel_dtype(self) -> torch.dtype:
        return torch.float32

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
        grid = (len(slot_frames), *self.card.token_grid)
        readers = None
        if tap != "block":
            name = {"query": "norm_q", "key": "norm_k"}[tap]
            readers = [block.get_submodule(f"attn1.{name}") for block in blocks]

        def keep(output: Any) -> np.ndarray:
            # a block returns (video, text); its norms have (1, N, heads, channels)
            tokens = output[0] if tap == "block" else output.flatten(2)
            return to_float16(tokens[0].unflatten(0, grid))

        return run_blocks(
            lambda: self.transformer(
                hidden_states=noisy.to(self.dtype),
                encoder_hidden_states=self.prompt.to(self.dtype),
                timestep=torch.tensor([timestep], device=noisy.device),
                encoder_attention_mask=self.mask.bool(),
                return_dict=False,
            ),
            blocks,
            layers=layers,
            keep=keep,
            readers=readers,
            should_stop=should_stop,
        )
