"""toy-jepa: reading its folder, and the tokens of its blocks as features.

The encoder's boxes are pairs of frames. The first frame is doubled, so that the pairs of 17 frames
are (0, 0), (1, 2), (3, 4), ... and every slot of toy-wan begins one of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from explorer._typing import Float, Int, UInt8
from explorer.backbones._hooks import run_blocks
from explorer.backbones._toy_network import PixelBackbone, load_network
from explorer.backbones.base import never
from explorer.nets.vggt import IMAGENET_MEAN, IMAGENET_STD
from explorer.nets.vjepa import VideoViT, VideoViTConfig


def load_jepa(folder: Path, *, device: str, dtype: str = "float32") -> VideoViT:
    """The encoder of a folder with config.json and safetensors, in evaluation mode.

    Raises:
        BackboneError: files are missing or broken, or do not fit the configuration; the dtype is
            unknown.
    """
    found: VideoViT = load_network(
        folder, lambda fields: VideoViT(VideoViTConfig(**fields)), device=device, dtype=dtype
    )
    return found


def to_boxes(clips: UInt8[torch.Tensor, "B T H W 3"]) -> Float[torch.Tensor, "B 3 U H W"]:
    """Clips as the encoder wants them: the first frame twice, normalised; U = T + 1, T odd."""
    doubled = torch.cat([clips[:, :1], clips], dim=1).permute(0, 4, 1, 2, 3).float() / 255.0
    # Plain numbers: a tensor made here would break the capture of a CUDA graph.
    channels = zip(doubled.unbind(1), IMAGENET_MEAN, IMAGENET_STD, strict=True)
    return torch.stack([(each - mean) / std for each, mean, std in channels], dim=1)


@torch.inference_mode()
def box_tokens(
    model: VideoViT,
    video: Float[torch.Tensor, "B 3 U H W"],
    slot_frames: Int[np.ndarray, " S"],
    *,
    layers: Sequence[int],
    should_stop: Callable[[], bool] = never,
) -> dict[int, torch.Tensor]:
    """Tokens (B, S, h, w, dim) after the wanted blocks, of the pairs that hold the slots' frames.

    Raises:
        Cancelled: `should_stop` became true; asked before each block.
    """
    grid = model.grid(*video.shape[2:])
    boxes = [(int(frame) + 1) // 2 for frame in slot_frames]

    def of_slots(tokens: torch.Tensor) -> torch.Tensor:
        placed = tokens.unflatten(1, grid)
        return torch.stack([placed[:, box] for box in boxes], dim=1)

    return run_blocks(
        lambda: model(video),
        list(model.blocks),
        layers=layers,
        keep=of_slots,
        should_stop=should_stop,
    )


class JepaBackbone(PixelBackbone):
    """The clip in pairs of frames, seen by the predictive encoder; it knows no noise."""

    @property
    def blocks(self) -> Sequence[torch.nn.Module]:
        return list(self.transformer.blocks)

    def read(
        self,
        pictures: UInt8[torch.Tensor, "1 T H W 3"],
        slot_frames: Int[np.ndarray, " S"],
        *,
        layers: Sequence[int],
        tap: str,
        should_stop: Callable[[], bool],
    ) -> dict[int, torch.Tensor]:
        boxes = to_boxes(pictures).to(self.dtype)
        return box_tokens(
            self.transformer, boxes, slot_frames, layers=layers, should_stop=should_stop
        )
