"""Wan 2.1's video VAE, encoding faster than diffusers runs it; latents are the same to rounding.

diffusers encodes frame 0 and then the frames of one latent slot after another, each convolution
keeping the last two frames of its input. What it keeps serves passes of several slots just as well.
Its layers take more steps than they need: a convolution copies its input twice before it begins,
and a normalisation goes over all of it ten times.
"""

from __future__ import annotations

from itertools import pairwise
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from explorer._typing import Float
from explorer.backbones import _memory
from explorer.backbones._wan_types import Vae

ROOM = 5_500_000_000
"""Bytes that a pass of several slots may take. In half precision that is two slots of 480 x 832,
beside which Wan 2.1 14B stays within 32 GiB; a clip of the toy laboratory's size passes at once."""
TINY = 1e-24
"""Added to mean squares: nothing to any number but 0, which stays 0."""


def is_covered(vae: Vae) -> bool:
    """Whether it is built as Wan 2.1's; that of Wan 2.2's 5B is not."""
    return not (vae.config.is_residual or vae.config.patch_size)


def slots_at_once(vae: Vae, video: Float[torch.Tensor, "B 3 T H W"]) -> int:
    """Latent slots in one pass: as many as there is room for on a GPU, else one.

    A CPU is no faster with more, and tiles and other structures are left to diffusers.
    """
    if not video.is_cuda or vae.use_tiling or not is_covered(vae):
        return 1
    return slots_within(vae, tuple(video.shape), _memory.free(str(video.device)))


def slots_within(vae: Vae, shape: tuple[int, ...], free: int) -> int:
    """Latent slots in one pass of clips (B, 3, T, H, W) where so many bytes are free.

    Those for which there is `ROOM`, or else one: the last bits of latents depend on it, so that
    there are not more possibilities. A pass of n slots takes at most 7 + 5 n tensors of the size
    that the first block has for one: counted from shapes, see benchmarks/vae_memory.py.
    """
    batch, _, frames, height, width = shape
    step = vae.config.scale_factor_temporal
    tensor = batch * vae.config.base_dim * step * height * width * vae.dtype.itemsize
    slots = max(1, min((ROOM // tensor - 7) // 5, (frames - 1) // step))
    return slots if (7 + 5 * slots) * tensor <= free // 2 else 1


def encode(
    vae: Vae, video: Float[torch.Tensor, "B 3 T H W"], slots: int
) -> Float[torch.Tensor, "B c S h w"]:
    """Mean and log variance, c = 2 z, of clips: frame 0 by itself, then `slots` slots a pass."""
    step = vae.config.scale_factor_temporal
    frames = 1 + (video.shape[2] - 1) // step * step
    ends = sorted({0, 1, *range(1, frames, step * slots), frames})
    kept = [None] * sum(1 for _ in vae.encoder.modules())  # more than there are convolutions
    found = [
        vae.encoder(video[:, :, start:end], feat_cache=kept, feat_idx=[0])
        for start, end in pairwise(ends)
    ]
    moments: torch.Tensor = vae.quant_conv(torch.cat(found, dim=2))
    return moments


def quicken(vae: Vae) -> None:
    """Have an encoder's layers done in few steps, where its device gains from it.

    That is a GPU in half precision, and a CPU in float32: there torch gives small convolutions in
    time to a kernel of its own, with which encoding takes four times as long as with oneDNN's.
    """
    weights = next(vae.parameters())
    on_gpu = weights.is_cuda and weights.dtype != torch.float32
    if on_gpu:
        channels_last(vae)
    if not is_covered(vae) or not (on_gpu or _is_for_onednn(weights)):
        return
    channels_last(vae)
    replace_layers(vae)


def replace_layers(vae: Vae) -> None:
    """Have convolutions and normalisations of the encoder done by the functions below."""
    for layer in vae.encoder.modules():
        kind = type(layer).__name__
        if kind == "WanCausalConv3d":
            layer.forward = MethodType(_convolve, layer)
        elif kind == "WanRMS_norm":
            layer.forward = MethodType(_normalise, layer)


@torch.no_grad()
def channels_last(network: nn.Module) -> None:
    """Give the weights of convolutions the layout in which fast kernels read them.

    Activations follow the weights; values change in their last bits only.
    """
    for weights in network.parameters():
        if weights.dim() == 5:
            weights.data = weights.data.contiguous(memory_format=torch.channels_last_3d)
        elif weights.dim() == 4:
            weights.data = weights.data.contiguous(memory_format=torch.channels_last)


def _is_for_onednn(x: torch.Tensor) -> bool:
    # On other processors than x86 its convolutions may be the slow ones.
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
    )


def _convolve(layer: Any, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
    """A causal convolution: one copy puts earlier frames before it, the kernel pads in space."""
    columns, _, rows, _, before, _ = layer._padding
    if before:
        missing = before - (0 if cache_x is None else cache_x.shape[2])
        blank = (0, 0, 0, 0, missing, 0)
        if cache_x is None:
            x = functional.pad(x, blank)
        else:
            earlier = functional.pad(cache_x, blank) if missing else cache_x
            x = torch.cat([earlier, x], dim=2)
    around = (0, rows, columns)
    if not _is_for_onednn(x):
        return functional.conv3d(x, layer.weight, layer.bias, layer.stride, around)
    found: torch.Tensor = torch.ops.aten.mkldnn_convolution(
        x, layer.weight, layer.bias, around, layer.stride, layer.dilation, layer.groups
    )
    return found


def _normalise(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """The root mean square over channels becomes 1, in one kernel: they lie beside each other."""
    channels = x.movedim(1, -1)
    found = functional.rms_norm(channels, channels.shape[-1:], layer.gamma.flatten(), TINY)
    return found.movedim(-1, 1)
