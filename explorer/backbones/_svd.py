"""Features of Stable Video Diffusion: attention modules of one size of its U-Net."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from explorer._typing import Float
from explorer.backbones._hooks import checked_before, run_blocks
from explorer.backbones._latents import LatentModel, compute_provenance, to_float16, to_video
from explorer.backbones._options import Target
from explorer.backbones._svd_published import LEVEL
from explorer.backbones._wan_files import DTYPES
from explorer.backbones.base import BackboneCard, Hashes, resize_frames, stop_check
from explorer.noise import Schedule

if TYPE_CHECKING:
    from explorer.clip import Clip

MICRO = (6.0, 127.0, 0.02)
"""What its sampler says by default: frames per second less one, motion, noise on the image."""


class SVDBackbone(LatentModel):
    """A U-Net and an image VAE, which sees one frame at a time."""

    def __init__(
        self,
        card: BackboneCard,
        vae: Any,
        unet: Any,
        target: Target,
        *,
        hashes: Hashes,
        schedule: Schedule,
    ) -> None:
        dtype = DTYPES[target.dtype]
        super().__init__(
            card,
            vae,
            weights_hash=hashes.weights,
            encoder_hash=hashes.encoder,
            provenance=compute_provenance(torch.device(target.device), dtype, trained=True),
            schedule=schedule,
        )
        self.transformer = unet
        self.dtype = dtype

    @property
    def blocks(self) -> list[Any]:
        unet = self.transformer
        return [
            *unet.down_blocks[LEVEL].attentions,
            *unet.up_blocks[len(unet.up_blocks) - 1 - LEVEL].attentions,
        ]

    def latent_shape(self, frame_count: int) -> tuple[int, int, int, int]:
        scale = 2 ** (len(self.vae.config.block_out_channels) - 1)
        height, width = self.card.input_size
        return self.vae.config.latent_channels, frame_count, height // scale, width // scale

    @torch.inference_mode()
    def _encode(
        self, clip: Clip, should_stop: Callable[[], bool]
    ) -> Float[np.ndarray, "z S hl wl"]:
        self.encoder_calls += 1
        modes = []
        for frame in clip.frames:
            stop_check(should_stop)
            resized = resize_frames(frame[None], self.card.input_size)
            image = to_video(resized, self.device)[:, :, 0]
            mode = self.vae.encode(image.to(self.vae.dtype)).latent_dist.mode()
            modes.append(mode[0].float() * self.vae.config.scaling_factor)
        return np.ascontiguousarray(torch.stack(modes, dim=1).cpu().numpy())

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
        unet, blocks, grid = self.transformer, self.blocks, self.card.token_grid
        readers = None
        if tap != "block":
            name = {"query": "to_q", "key": "to_k"}[tap]
            # within each frame; attention over time comes after it
            readers = [
                block.get_submodule(f"transformer_blocks.0.attn1.{name}") for block in blocks
            ]
        frames = noisy.movedim(2, 1).to(self.dtype)
        # the unconditional branch of its sampler: no first frame, and no embedding of one
        inputs = torch.cat([frames, torch.zeros_like(frames)], dim=2)
        image = inputs.new_zeros(1, 1, unet.config.cross_attention_dim)

        def keep(output: Any) -> np.ndarray:
            tokens = output[0].movedim(1, -1) if tap == "block" else output.unflatten(1, grid)
            return to_float16(tokens)

        with ExitStack() as stack:
            for module in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
                stack.enter_context(checked_before(module, should_stop))
            return run_blocks(
                lambda: unet(
                    inputs,
                    torch.tensor(timestep, device=noisy.device),
                    encoder_hidden_states=image,
                    added_time_ids=inputs.new_tensor([MICRO]),
                    return_dict=False,
                ),
                blocks,
                layers=layers,
                keep=keep,
                readers=readers,
                should_stop=should_stop,
            )
