"""Video VAEs of diffusers that encode a clip in one piece, and the backbones that start there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from explorer._typing import Float
from explorer.backbones._hooks import checked_before
from explorer.backbones._latents import LatentModel, compute_provenance, to_video
from explorer.backbones._options import Target
from explorer.backbones._wan_files import DTYPES
from explorer.backbones.base import BackboneCard, Hashes, never, resize_frames, slot_map
from explorer.noise import Schedule

if TYPE_CHECKING:
    from explorer.clip import Clip


@torch.inference_mode()
def encode_clip(
    vae: Any,
    video: Float[torch.Tensor, "B 3 T H W"],
    *,
    mean: torch.Tensor,
    std: torch.Tensor,
    should_stop: Callable[[], bool] = never,
) -> Float[torch.Tensor, "B z S h w"]:
    """Posterior mean, normalised: (mode - mean) * scaling factor / std.

    Args:
        vae: diffusers' VAE.
        video: in [-1, 1], in the dtype that the encoder wants.
        mean: (z,) of the latents.
        std: (z,) of the latents.
        should_stop: asked before the encoder (of each tile) and each of its levels.

    Raises:
        Cancelled: `should_stop` became true.
    """
    with ExitStack() as stack:
        for module in (vae.encoder, *vae.encoder.down_blocks):
            stack.enter_context(checked_before(module, should_stop))
        mode = vae.encode(video).latent_dist.mode().float()
    shape = (1, -1, 1, 1, 1)
    center, spread = (value.to(mode).view(shape) for value in (mean, std))
    normalised: torch.Tensor = (mode - center) * vae.config.scaling_factor / spread
    return normalised


class ClipLatentModel(LatentModel):
    """A transformer on the latents of such a VAE, with a prompt and its mask.

    Attributes:
        transformer: the network.
        prompt: (1, L, D) embedding, on the device.
        mask: (1, L), one where a token is no padding.
    """

    def __init__(
        self,
        card: BackboneCard,
        vae: Any,
        transformer: Any,
        target: Target,
        *,
        hashes: Hashes,
        schedule: Schedule,
        prompt: dict[str, torch.Tensor],
    ) -> None:
        dtype, device = DTYPES[target.dtype], torch.device(target.device)
        super().__init__(
            card,
            vae,
            weights_hash=hashes.weights,
            encoder_hash=hashes.encoder,
            provenance=compute_provenance(device, dtype, trained=True),
            schedule=schedule,
        )
        self.transformer = transformer
        self.dtype = dtype
        self.prompt = prompt["prompt"].to(device)
        self.mask = prompt["mask"].to(device)

    @property
    def blocks(self) -> list[Any]:
        return list(self.transformer.transformer_blocks)

    @property
    def pixel_dtype(self) -> torch.dtype:
        """What the VAE's encoder is given."""
        dtype: torch.dtype = self.vae.dtype
        return dtype

    def latent_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean, std) of the VAE's latents, each (z,)."""
        config = self.vae.config
        return torch.tensor(config.latents_mean), torch.tensor(config.latents_std)

    def latent_shape(self, frame_count: int) -> tuple[int, int, int, int]:
        slots = len(slot_map(frame_count, self.card.frame_step)[1])
        scale = self.vae.spatial_compression_ratio
        height, width = self.card.input_size
        return self.vae.config.latent_channels, slots, height // scale, width // scale

    def _encode(
        self, clip: Clip, should_stop: Callable[[], bool]
    ) -> Float[np.ndarray, "z S hl wl"]:
        self.encoder_calls += 1
        video = to_video(resize_frames(clip.frames, self.card.input_size), self.device)
        mean, std = self.latent_statistics()
        latents = encode_clip(
            self.vae, video.to(self.pixel_dtype), mean=mean, std=std, should_stop=should_stop
        )[0]
        return np.ascontiguousarray(latents.cpu().numpy())
