"""Block outputs of diffusers' HunyuanVideo transformer on noisy latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from explorer._typing import Float
from explorer.backbones._hooks import run_blocks
from explorer.backbones._hunyuan_vae import HunyuanLatentModel
from explorer.backbones._latents import compute_provenance, to_float16
from explorer.backbones.base import BackboneCard
from explorer.noise import Schedule

GUIDANCE = 6016.0
"""Strength of guidance that the distilled model is told, times 1000.

The pipelines' default is 6. They multiply in bfloat16, where 6000 does not exist, and the network
takes sines of the number: 6000 and 6016 are as different to it as any two. It is told in every
precision what it is told in the usual one.
"""
IMAGE_TOKENS = 729
"""Tokens of a first image in version 1.5; all zero without one."""


def tapped(block: Any, tap: str) -> torch.nn.Module:
    """The norm whose output is the query or key of a block, before rotation.

    In a double-stream block it sees image tokens alone, in a single-stream block text after them.
    """
    module: torch.nn.Module = {"query": block.attn.norm_q, "key": block.attn.norm_k}[tap]
    return module


def image_tokens(output: Any, grid: tuple[int, int, int]) -> torch.Tensor:
    """(S, h, w, C) of what a block returns, (image, text), or of (1, N + L, heads, C / heads)."""
    tokens: torch.Tensor = output[0][0] if isinstance(output, tuple) else output[0].flatten(1)
    slots, rows, columns = grid
    return tokens[: slots * rows * columns].unflatten(0, grid)


class HunyuanBackbone(HunyuanLatentModel):
    """The Hunyuan VAE and a transformer of diffusers' class behind the one `extract`."""

    def __init__(
        self,
        card: BackboneCard,
        vae: Any,
        transformer: Any,
        *,
        weights_hash: str,
        encoder_hash: str | None,
        schedule: Schedule,
        prompt: dict[str, torch.Tensor],
    ) -> None:
        self.dtype: torch.dtype = transformer.proj_out.weight.dtype
        super().__init__(
            card,
            vae,
            weights_hash=weights_hash,
            encoder_hash=encoder_hash,
            provenance=compute_provenance(vae.device, self.dtype, trained=True),
            schedule=schedule,
        )
        self.transformer = transformer.eval().requires_grad_(False)
        self.prompt = prompt

    @property
    def blocks(self) -> Sequence[Any]:
        return [*self.transformer.transformer_blocks, *self.transformer.single_transformer_blocks]

    def inputs(
        self, noisy: Float[torch.Tensor, "1 z S hl wl"], timestep: float
    ) -> dict[str, torch.Tensor | None]:
        """What the transformer is called with, as its pipeline does."""
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = torch.tensor([GUIDANCE], device=noisy.device)
        return {
            "hidden_states": noisy.to(self.dtype),
            "timestep": torch.tensor([timestep], dtype=torch.float32, device=noisy.device),
            "encoder_hidden_states": self.prompt["text"].to(self.dtype),
            "encoder_attention_mask": self.prompt["mask"].to(self.dtype),
            "pooled_projections": self.prompt["pooled"].to(self.dtype),
            "guidance": guidance,
        }

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
        grid = (len(slot_frames), *self.card.token_grid)
        blocks = list(self.blocks)
        return run_blocks(
            lambda: self.transformer(**self.inputs(noisy, timestep), return_dict=False),
            blocks,
            layers=layers,
            keep=lambda output: to_float16(image_tokens(output, grid)),
            readers=None if tap == "block" else [tapped(block, tap) for block in blocks],
            should_stop=should_stop,
        )


class Hunyuan15Backbone(HunyuanBackbone):
    """Version 1.5: double-stream blocks alone, and places for glyphs and a first image.

    Text to video leaves the image and its mask zero; glyphs are zero unless the prompt quotes text.
    """

    def __init__(self, card: BackboneCard, vae: Any, transformer: Any, **rest: Any) -> None:
        super().__init__(card, vae, transformer, **rest)
        # The network rounds the timestep to the dtype of its weights before it takes sines of it,
        # by up to 2 of 1000 in bfloat16. It gets float32, and its sines are rounded instead.
        transformer.time_embed.timestep_embedder.register_forward_pre_hook(
            lambda module, inputs: tuple(each.to(self.dtype) for each in inputs)
        )

    @property
    def blocks(self) -> Sequence[Any]:
        return list(self.transformer.transformer_blocks)

    def inputs(
        self, noisy: Float[torch.Tensor, "1 z S hl wl"], timestep: float
    ) -> dict[str, torch.Tensor | None]:
        latents = noisy.to(self.dtype)
        nothing = torch.zeros_like(latents)
        width = self.transformer.config.image_embed_dim
        return {
            "hidden_states": torch.cat([latents, nothing, nothing[:, :1]], dim=1),
            "timestep": torch.tensor([timestep], dtype=torch.float32, device=noisy.device),
            "encoder_hidden_states": self.prompt["text"].to(self.dtype),
            "encoder_attention_mask": self.prompt["mask"].to(self.dtype),
            "encoder_hidden_states_2": self.prompt["glyphs"].to(self.dtype),
            "encoder_attention_mask_2": self.prompt["glyph_mask"].to(self.dtype),
            "image_embeds": latents.new_zeros(1, IMAGE_TOKENS, width),
        }
