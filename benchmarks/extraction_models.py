"""Wan 2.1 at its true size with random weights, made on the device; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from explorer.backbones import _build, _wan_vae

# transformer/config.json of the published repositories; what is not named is diffusers' default.
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "wan2.1-1.3b": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    "wan2.1-14b": {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40},
}
TINY_TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 48,
    "num_layers": 4,
}
TINY_VAE: dict[str, Any] = {
    "base_dim": 4,
    "z_dim": 4,
    "dim_mult": [1, 1, 2, 2],
    "num_res_blocks": 1,
    "latents_mean": [0.0] * 4,
    "latents_std": [1.0] * 4,
}
LAYERS = ("theirs", "channels last", "few steps")
"""diffusers' own; the same in the other layout; those that a VAE is loaded with on a GPU."""


def random_tensors(
    network: torch.nn.Module, device: torch.device
) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights under which activations neither vanish nor grow, made on the device."""
    generator = torch.Generator(device).manual_seed(0)
    for name, empty in network.state_dict().items():
        noise = torch.randn(empty.shape, generator=generator, device=device)
        if empty.dim() > 1 and max(empty.shape) < empty.numel():
            yield name, noise / empty[0].numel() ** 0.5
        elif name.endswith(("weight", "gamma")):
            yield name, 1 + 0.1 * noise
        else:
            yield name, 0.1 * noise


def make(kind: str, config: dict[str, Any], *, device: torch.device, dtype: str) -> Any:
    """A model of diffusers, built without memory and filled part by part."""
    import diffusers

    model: Any = getattr(diffusers, kind)
    has_blocks = kind == "WanTransformer3DModel"
    network = _build.build_empty(
        lambda: model(**config),
        (lambda: model(**{**config, "num_layers": 0})) if has_blocks else None,
    )
    tensors = random_tensors(network, device)
    where = Path("random weights")
    return _build.fill(network, tensors, device=str(device), dtype=dtype, where=where)


def make_vae(*, tiny: bool, device: torch.device, dtype: str, layers: str) -> Any:
    """The VAE with one of `LAYERS`."""
    vae = make("AutoencoderKLWan", TINY_VAE if tiny else {}, device=device, dtype=dtype)
    if layers != "theirs":
        _wan_vae.channels_last(vae)
    if layers == "few steps":
        _wan_vae.replace_layers(vae)
    return vae


def make_transformer(name: str, *, tiny: bool, device: torch.device, dtype: str) -> Any:
    """One of `TRANSFORMERS`."""
    config = TINY_TRANSFORMER if tiny else TRANSFORMERS[name]
    return make("WanTransformer3DModel", config, device=device, dtype=dtype)


def make_prompt(transformer: Any, device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 512, transformer.config.text_dim, generator=generator).to(device)
