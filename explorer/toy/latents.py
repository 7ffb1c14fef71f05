"""Latent pools: rendered clips through the frozen VAE, normalised as the transformer sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from explorer.backbones._latents import encode_video
from explorer.toy.config import FRAMES, VAE_CONFIG
from explorer.toy.pool import Renderer, for_seconds
from explorer.toy.shards import load_checkpoint
from explorer.toy.widen import latent_channels

STATISTICS = ("latents_mean", "latents_std")
"""What latents are normalised with, by its names in a VAE's card and configuration."""


def load_vae(folder: Path, device: str) -> AutoencoderKLWan:
    """The trained VAE of a checkpoint folder, frozen, with its latent statistics in the config."""
    tensors, card = load_checkpoint(folder, "vae")
    shape = {
        "z_dim": latent_channels(tensors),
        **{name: card[name] for name in STATISTICS},
    }
    vae = AutoencoderKLWan(**{**VAE_CONFIG, **shape})
    vae.load_state_dict(tensors)
    vae = vae.to(device).eval().requires_grad_(False)
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv3d) and module.weight.is_cuda:
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
    return vae


def encode(vae: AutoencoderKLWan, images: Tensor, *, slots: int | None = None) -> Tensor:
    """Normalised posterior means (B, C, S, h, w) of uint8 clips (B, T, H, W, 3), as in use."""
    clip = images.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
    latents: Tensor = encode_video(vae, clip, slots=slots)
    return latents


def encode_whole(vae: AutoencoderKLWan, images: Tensor) -> Tensor:
    """As `encode`, frame 0 and then all others in one pass, however many clips there are.

    A GPU spends less time on it: on small passes most goes into launching kernels.
    """
    return encode(vae, images, slots=images.shape[1])


def encode_alone(vae: AutoencoderKLWan, images: Tensor) -> Tensor:
    """As `encode`, of every frame as a clip of its own: (B, C, T, h, w) of (B, T, H, W, 3)."""
    alone = encode(vae, images.flatten(0, 1)[:, None])
    return alone.squeeze(2).unflatten(0, images.shape[:2]).transpose(1, 2)


ENCODES = ("encoder.", "quant_conv.")
"""Beginnings of the names of a VAE's weights that its latents depend on."""


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of a VAE's weights up to its latents, in float16, the form that they are shipped in.

    It says which VAE latents are of, so a decoder that was trained further changes nothing.
    """
    digest = hashlib.sha256()
    for name in sorted(name for name in tensors if name.startswith(ENCODES)):
        half = tensors[name].detach().to("cpu", torch.float16).contiguous()
        digest.update(f"{name} {tuple(half.shape)}\0".encode())
        digest.update(half.numpy().tobytes())
    return digest.hexdigest()


def one_frame(seeds: list[int]) -> list[int]:
    """The frame that single-frame training sees of a batch of scenes: any, named by its seeds."""
    generator = torch.Generator().manual_seed(seeds[0])
    return [int(torch.randint(FRAMES, (1,), generator=generator))]


@torch.no_grad()
def latent_batches(
    renderer: Renderer,
    vae: AutoencoderKLWan,
    seeds: Iterable[int],
    *,
    batch: int,
    height: int,
    width: int,
    frames: Callable[[list[int]], list[int]] | None = None,
) -> Iterator[Tensor]:
    """bfloat16 latents (B, C, S, h, w) of `batch` seeds after another.

    `frames` names one frame of a batch's seeds; without it the clips are whole.
    """
    on_gpu = next(vae.parameters()).device.type == "cuda"
    for rendered in renderer.batches(seeds, batch=batch, height=height, width=width, frames=frames):
        with torch.autocast("cuda" if on_gpu else "cpu", dtype=torch.bfloat16, enabled=on_gpu):
            latents = encode_whole(vae, rendered.images).to(torch.bfloat16)
        if on_gpu:
            torch.cuda.synchronize()
        yield latents


def latent_pool(
    renderer: Renderer,
    vae: AutoencoderKLWan,
    seeds: Iterable[int],
    *,
    seconds: float | None = None,
    **named: Any,
) -> Tensor:
    """`latent_batches` of all seeds in one tensor, or of as many as `for_seconds` allows."""
    return torch.cat(list(for_seconds(latent_batches(renderer, vae, seeds, **named), seconds)))
