"""Latents of the video VAE of HunyuanVideo, which Open-Sora 2.0 uses too.

Its encoder attends over all tokens of what it is given, with a mask as large as their square: a
whole clip at full size does not fit anywhere. The VAE is run as in Open-Sora: in tiles of 256
pixels that overlap by 64, each with all frames; `--vae-tiling` makes them smaller still. The VAE of
HunyuanVideo 1.5 attends likewise and is treated likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from explorer._typing import Float
from explorer.backbones import _build
from explorer.backbones._hooks import checked_before
from explorer.backbones._latents import LatentModel, to_video
from explorer.backbones._options import Target
from explorer.backbones.base import never, resize_frames

if TYPE_CHECKING:
    from explorer.clip import Clip

TINY: dict[str, Any] = {
    "latent_channels": 4,
    "block_out_channels": [4, 4, 8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 2,
}


def make(settings: dict[str, Any], kind: str = "AutoencoderKLHunyuanVideo") -> Any:
    """A VAE of one of diffusers' classes; no settings give the released one."""
    import diffusers

    return getattr(diffusers, kind).from_config(settings)


def load_vae(
    target: Target,
    files: Sequence[Path],
    settings: dict[str, Any],
    kind: str = "AutoencoderKLHunyuanVideo",
) -> Any:
    """The VAE, encoder and decoder, from safetensors files.

    The files of Tencent, Open-Sora and the community's repository name its tensors alike.

    Raises:
        BackboneError: a file is broken or of another structure.
    """
    vae = _build.fill(
        _build.build_empty(lambda: make(settings, kind)),
        _build.shards(files),
        device=target.device,
        dtype=target.vae_dtype,
        where=files[0].parent,
    )
    return tiled(vae, small=target.vae_tiling)


def tiled(vae: Any, *, small: bool = False) -> Any:
    """The VAE, set to tiles of 256 pixels and all frames, or smaller ones.

    Smaller ones have 16 frames, or 128 pixels in version 1.5, which has no tiles in time.
    """
    vae.enable_tiling()
    if hasattr(vae, "use_framewise_encoding"):
        vae.use_framewise_encoding = small
    elif small:
        latent = 128 // vae.spatial_compression_ratio
        vae.enable_tiling(128, 128, latent, latent)
    return vae


@torch.inference_mode()
def encode_video(
    vae: Any, video: Float[torch.Tensor, "B 3 T H W"], *, should_stop: Callable[[], bool] = never
) -> Float[torch.Tensor, "B z S h w"]:
    """Posterior mean times the VAE's scaling factor, float32.

    Raises:
        Cancelled: `should_stop` became true; asked before each tile.
    """
    with checked_before(vae.encoder, should_stop):
        mean = vae.encode(video.to(vae.dtype)).latent_dist.mode()
    scaled: torch.Tensor = mean.float() * vae.config.scaling_factor
    return scaled


class HunyuanLatentModel(LatentModel):
    """A backbone that sees a clip through this VAE.

    Attributes:
        extra_slots: latent frames that `encode` adds behind those of the clip.
    """

    extra_slots = 0

    def latent_shape(self, frame_count: int) -> tuple[int, int, int, int]:
        slots = len(self.slots(frame_count)[1]) + self.extra_slots
        scale = self.vae.spatial_compression_ratio
        height, width = self.card.input_size
        return self.vae.config.latent_channels, slots, height // scale, width // scale

    def _encode(
        self, clip: Clip, should_stop: Callable[[], bool]
    ) -> Float[np.ndarray, "z S hl wl"]:
        self.encoder_calls += 1
        video = to_video(resize_frames(clip.frames, self.card.input_size), self.device)
        return np.ascontiguousarray(self.encode_video(video, should_stop)[0].cpu().numpy())

    def encode_video(
        self, video: Float[torch.Tensor, "1 3 T H W"], should_stop: Callable[[], bool]
    ) -> Float[torch.Tensor, "1 z S hl wl"]:
        """All latents that the model needs of a clip; the caller holds the lock."""
        return encode_video(self.vae, video, should_stop=should_stop)
