"""Block outputs of Open-Sora 2.0's transformer on noisy latents and a clean first frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from explorer._typing import Float
from explorer.backbones._hooks import run_blocks
from explorer.backbones._hunyuan_vae import HunyuanLatentModel, encode_video
from explorer.backbones._latents import compute_provenance, to_float16
from explorer.backbones.base import BackboneCard
from explorer.nets.mmdit import MMDiT, first_frame_condition
from explorer.noise import NoiseLevel, Schedule


def tapped(block: Any, tap: str) -> torch.nn.Module:
    """The norm whose output is the query or key of a block, before rotation.

    In a double-stream block it sees image tokens alone, in a single-stream block text before them.
    """
    norm = block.img_attn.norm if hasattr(block, "img_attn") else block.norm
    module: torch.nn.Module = {"query": norm.query_norm, "key": norm.key_norm}[tap]
    return module


def image_tokens(output: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
    """(S, h, w, C) of (1, L + N, C), or of (1, heads, L + N, C / heads): text tokens come first."""
    tokens = output[0] if output.dim() == 3 else output[0].transpose(0, 1).flatten(1)
    slots, rows, columns = grid
    return tokens[-slots * rows * columns :].unflatten(0, grid)


class OpenSoraBackbone(HunyuanLatentModel):
    """The Hunyuan VAE and the MMDiT behind the one `extract`.

    The latents of a clip end with one more frame: frame 0 encoded alone, which differs from the
    first latent frame of the clip because the encoder's norms see all frames.
    """

    extra_slots = 1

    def __init__(
        self,
        card: BackboneCard,
        vae: Any,
        transformer: MMDiT,
        *,
        weights_hash: str,
        encoder_hash: str | None,
        schedule: Schedule,
        prompt: dict[str, torch.Tensor],
    ) -> None:
        self.dtype = transformer.img_in.weight.dtype
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
        return self.transformer.blocks

    def encode_video(
        self, video: Float[torch.Tensor, "1 3 T H W"], should_stop: Callable[[], bool]
    ) -> Float[torch.Tensor, "1 z S hl wl"]:
        parts = (video, video[:, :, :1])
        latents = [encode_video(self.vae, part, should_stop=should_stop) for part in parts]
        return torch.cat(latents, dim=2)

    def with_noise(
        self, clean: Float[torch.Tensor, "1 z S hl wl"], seed: int, level: NoiseLevel
    ) -> Float[torch.Tensor, "1 z S hl wl"]:
        noisy = super().with_noise(clean[:, :, :-1], seed, level)
        return torch.cat([noisy, clean[:, :, -1:]], dim=2)

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
        latents, first = noisy[:, :, :-1].to(self.dtype), noisy[:, :, -1:].to(self.dtype)
        steps = torch.full((1,), timestep, dtype=torch.float32, device=noisy.device)
        blocks = list(self.blocks)
        return run_blocks(
            lambda: self.transformer(
                latents,
                steps,
                text=self.prompt["text"].to(self.dtype),
                pooled=self.prompt["pooled"].to(self.dtype),
                condition=first_frame_condition(first, len(slot_frames)),
            ),
            blocks,
            layers=layers,
            keep=lambda output: to_float16(image_tokens(output, grid)),
            readers=None if tap == "block" else [tapped(block, tap) for block in blocks],
            should_stop=should_stop,
        )
