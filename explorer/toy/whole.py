"""AutoencoderKLWan over a whole clip at once: what training needs, the same numbers as in use.

diffusers encodes and decodes chunk by chunk and hands the last frames on in a cache, which bounds
memory but costs five to ten times the kernel launches. The convolutions are causal in time, so
one pass over all frames gives the same latents and pictures; only the resampling in time treats
the first frame apart (it stands for itself, the other frames go in groups of four).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor


def _in_space(resample: Any, x: Tensor) -> Tensor:
    frames = x.shape[2]
    flat = resample.resample(x.transpose(1, 2).flatten(0, 1))
    return flat.unflatten(0, (-1, frames)).transpose(1, 2)


def _downsample(resample: Any, x: Tensor) -> Tensor:
    """Halve in space, then in time: frame 0 alone, each later one from itself and two before."""
    x = _in_space(resample, x)
    if resample.mode != "downsample3d" or x.shape[2] == 1:
        return x
    return torch.cat([x[:, :, :1], resample.time_conv(x)], dim=2)


def _upsample(resample: Any, x: Tensor) -> Tensor:
    """Double in time (frame 0 stays alone), then in space."""
    if resample.mode == "upsample3d" and x.shape[2] > 1:
        later = resample.time_conv(x[:, :, 1:])
        pairs = torch.stack(later.chunk(2, dim=1), dim=3).flatten(2, 3)
        x = torch.cat([x[:, :, :1], pairs], dim=2)
    return _in_space(resample, x)


@contextmanager
def whole_clips(vae: AutoencoderKLWan) -> Iterator[None]:
    """Within it, `encode` and `decode` of this module may run on the VAE; diffusers' own may not.

    Raises:
        ValueError: the VAE has Wan2.2's residual structure or patches, which are not covered.
    """
    if vae.config.is_residual or vae.config.patch_size is not None:
        raise ValueError("only the structure of Wan2.1's VAE is covered")
    resamples: list[Any] = [m for m in vae.modules() if type(m).__name__ == "WanResample"]
    for module in resamples:
        step = _downsample if module.mode.startswith("downsample") else _upsample
        module.forward = lambda x, module=module, step=step: step(module, x)
    try:
        yield
    finally:
        for module in resamples:
            del module.forward


def encode(vae: Any, clip: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, log variance), each (B, C, S, h, w), of a clip (B, 3, 1 + 4 (S - 1), H, W)."""
    moments: Tensor = vae.quant_conv(vae.encoder(clip))
    mean, log_variance = moments.chunk(2, dim=1)
    return mean, log_variance.clamp(-30.0, 20.0)


def decode(vae: Any, latents: Tensor) -> Tensor:
    """The clip of latents, not clamped to [-1, 1]: a clamp has no gradient where it acts."""
    clip: Tensor = vae.decoder(vae.post_quant_conv(latents))
    return clip
