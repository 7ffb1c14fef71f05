"""More latent channels for weights that were trained with fewer: they start from what they know.

A widened VAE decodes to the same pictures as before, because its decoder does not listen to the
new channels yet. A transformer keeps its blocks and what it knows of the old channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
LISTEN = 0.02  # spread of a transformer's new weights, about that of trained ones
CERTAIN = -6.0  # log variance of a new channel: the decoder may rely on it once it listens


def latent_channels(vae: Tensors) -> int:
    """How many latent channels an `AutoencoderKLWan`'s weights have."""
    return int(vae["post_quant_conv.weight"].shape[0])


def widen_vae(vae: Tensors, channels: int) -> Tensors:
    """Weights of an `AutoencoderKLWan` with `channels` latent channels, from those with fewer.

    The encoder gets random features for the new channels (seeded); the decoder's weights for them
    are zero and learn first.

    Raises:
        ValueError: there are more channels already.
    """
    old, wide = latent_channels(vae), dict(vae)
    new, generator = _more(old, channels)
    if new == 0:
        return wide

    features = vae["encoder.conv_out.weight"]  # (2 old, C, 3, 3, 3), in no particular order
    more = torch.randn(2 * new, *features.shape[1:], generator=generator)
    wide["encoder.conv_out.weight"] = torch.cat([features, more * features.std()])
    wide["encoder.conv_out.bias"] = torch.cat([vae["encoder.conv_out.bias"], torch.zeros(2 * new)])

    moments = torch.zeros(2 * channels, 2 * channels, 1, 1, 1)  # means first, log variances then
    bias = torch.zeros(2 * channels)
    for half in range(2):
        rows = slice(half * channels, half * channels + old)
        moments[rows, : 2 * old] = vae["quant_conv.weight"][half * old : (half + 1) * old]
        bias[rows] = vae["quant_conv.bias"][half * old : (half + 1) * old]
        for index in range(new):
            row, column = half * channels + old + index, 2 * old + half * new + index
            moments[row, column] = 1.0 if half == 0 else 0.1
            bias[row] = 0.0 if half == 0 else CERTAIN
    wide["quant_conv.weight"], wide["quant_conv.bias"] = moments, bias

    back = torch.eye(channels).view(channels, channels, 1, 1, 1).clone()
    back[:old, :old] = vae["post_quant_conv.weight"]
    wide["post_quant_conv.weight"] = back
    wide["post_quant_conv.bias"] = torch.cat([vae["post_quant_conv.bias"], torch.zeros(new)])

    first = vae["decoder.conv_in.weight"]  # (C, old, 3, 3, 3)
    silent = torch.zeros(first.shape[0], new, *first.shape[2:])
    wide["decoder.conv_in.weight"] = torch.cat([first, silent], dim=1)
    return wide


def widen_transformer(transformer: Tensors, channels: int) -> Tensors:
    """Weights of a `WanTransformer3DModel` on `channels` latent channels, from those with fewer.

    Raises:
        ValueError: there are more channels already.
    """
    patches = transformer["patch_embedding.weight"]  # (width, old, 1, 2, 2)
    old, wide = int(patches.shape[1]), dict(transformer)
    new, generator = _more(old, channels)
    if new == 0:
        return wide
    more = torch.randn(patches.shape[0], new, *patches.shape[2:], generator=generator)
    wide["patch_embedding.weight"] = torch.cat([patches, more * LISTEN], dim=1)

    width = transformer["proj_out.weight"].shape[1]
    out = transformer["proj_out.weight"].view(-1, old, width)  # the channel is the fastest index
    more = torch.randn(len(out), new, width, generator=generator)
    wide["proj_out.weight"] = torch.cat([out, more * LISTEN], dim=1).flatten(0, 1)
    bias = transformer["proj_out.bias"].view(-1, old)
    wide["proj_out.bias"] = torch.cat([bias, torch.zeros(len(out), new)], dim=1).flatten()
    return wide


def _more(old: int, channels: int) -> tuple[int, torch.Generator]:
    """(how many channels are new, what their weights are drawn from)."""
    if old > channels:
        raise ValueError(f"weights of {old} latent channels cannot be cut to {channels}")
    return channels - old, torch.Generator().manual_seed(channels)
