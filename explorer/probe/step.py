"""One step of training a probe: features and targets in, losses out."""

from __future__ import annotations

import torch
from torch import Tensor

from explorer.probe.losses import (
    CAMERA_WEIGHT,
    CONFIDENCE_WEIGHT,
    LossWeights,
    Targets,
    probe_loss,
)
from explorer.probe.model import Probe

METRICS = ("total", "points", "depth", "camera")


def mixed(device: str, *, enabled: bool) -> torch.autocast:
    """bfloat16 where it is safe; without the cache, which a CUDA graph must not record."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=enabled, cache_enabled=False)


def losses_of_tokens(
    probe: Probe,
    tokens: Tensor,
    targets: Targets,
    *,
    grid: tuple[int, int],
    size: tuple[int, int],
    autocast: bool,
    camera_weight: float = CAMERA_WEIGHT,
    confidence_weight: float = CONFIDENCE_WEIGHT,
    all_pixels: bool = False,
) -> Tensor:
    """`METRICS` of a batch of projected features.

    It reads nothing that depends on the width of the features, so what is compiled for one probe
    serves all.

    Args:
        probe: in training or evaluation mode.
        tokens: (B, S, h*w, dim), what the probe's `input_proj` gives.
        targets: of the same frames, with maps of (H, W) `size`.
        grid: (h, w) of the tokens.
        size: (H, W) of the maps.
        autocast: the trunk in bfloat16.
        camera_weight: of the camera loss in the total.
        confidence_weight: of the confidence loss in the total.
        all_pixels: take means over all pixels, those without geometry among them.

    Returns:
        (4,) losses.
    """
    with mixed(tokens.device.type, enabled=autocast):
        output = probe.geometry(probe.backbone.alternate(tokens, grid), grid, size)
    losses = probe_loss(
        output,
        targets,
        camera_weight=camera_weight,
        confidence_weight=confidence_weight,
        all_pixels=all_pixels,
    )
    return torch.stack([losses[name] for name in METRICS])


def losses_of(
    probe: Probe,
    features: Tensor,
    targets: Targets,
    *,
    autocast: bool,
    weights: LossWeights | None = None,
) -> Tensor:
    """`METRICS` of a batch of features (B, S, h, w, C), at the targets' size; see above."""
    with mixed(features.device.type, enabled=autocast):
        tokens = probe.backbone.input_proj(features.flatten(2, 3))
    grid, size = (features.shape[2], features.shape[3]), targets.depth.shape[-2:]
    return losses_of_tokens(
        probe,
        tokens,
        targets,
        grid=grid,
        size=(size[0], size[1]),
        autocast=autocast,
        **(weights or LossWeights())._asdict(),
    )
