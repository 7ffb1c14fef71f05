"""Three heads that turn taps into depth, points and cameras; probes and experts share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from explorer.nets.camera_head import POSE_DIM, CameraHead
from explorer.nets.dpt import DPTHead


class DenseMaps(NamedTuple):
    """What the two dense heads say about K frames.

    Attributes:
        depth: (K, H, W) z-depth in the frame's own camera, > 0.
        depth_confidence: (K, H, W) > 1.
        points: (K, H, W, 3) in the frame of the first camera.
        points_confidence: (K, H, W) > 1.
    """

    depth: torch.Tensor
    depth_confidence: torch.Tensor
    points: torch.Tensor
    points_confidence: torch.Tensor


class Geometry(NamedTuple):
    """Everything that is predicted for B clips of S frames.

    Lengths are relative to the mean distance of the first frame's points.

    Attributes:
        depth: (B, S, H, W) z-depth.
        depth_confidence: (B, S, H, W) > 1.
        points: (B, S, H, W, 3) in the frame of the first camera.
        points_confidence: (B, S, H, W) > 1.
        pose_encodings: one (B, S, 9) per pass of the camera head (see `explorer.nets.pose`).
    """

    depth: torch.Tensor
    depth_confidence: torch.Tensor
    points: torch.Tensor
    points_confidence: torch.Tensor
    pose_encodings: list[torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """Sizes of the three heads and what they start from; the configurations of networks extend it.

    The defaults are those of the published networks.

    Attributes:
        registers: register tokens after the camera token of each frame.
        dpt_dim: channels of the dense heads' fusion path.
        dpt_stage_channels: channels of their four levels.
        dpt_hidden: channels before their last convolution.
        dpt_factors: size of their four levels relative to the grid.
        camera_dim: width of the camera head; None keeps that of a tap.
        camera_depth: its blocks.
        camera_heads: its attention heads.
        camera_iterations: its passes.
        camera_mlp_ratio: hidden width of its MLPs over its width.
        camera_start: the encoding that its first correction is added to.
        output_bias: initial (depth, depth confidence, point x, y, z, point confidence) before the
            activations, with a small last layer; None leaves PyTorch's initial values.
    """

    registers: int = 4
    dpt_dim: int = 256
    dpt_stage_channels: tuple[int, ...] = (256, 512, 1024, 1024)
    dpt_hidden: int = 32
    dpt_factors: tuple[float, ...] = (4.0, 2.0, 1.0, 0.5)
    camera_dim: int | None = None
    camera_depth: int = 4
    camera_heads: int = 16
    camera_iterations: int = 4
    camera_mlp_ratio: float = 4.0
    camera_start: tuple[float, ...] = (0.0,) * POSE_DIM
    output_bias: tuple[float, ...] | None = None


class GeometryHeads(nn.Module):
    """Camera head, point head and depth head on taps of alternating attention.

    They always run in float32, whatever the autocast around them.

    Args:
        width: channels of a tap.
        config: sizes of the heads.
        layer_scale: initial LayerScale of the camera head.
    """

    def __init__(self, width: int, config: HeadsConfig, *, layer_scale: float) -> None:
        super().__init__()
        self.special = 1 + config.registers
        self.camera_head = CameraHead(
            width,
            dim=config.camera_dim,
            depth=config.camera_depth,
            heads=config.camera_heads,
            iterations=config.camera_iterations,
            mlp_ratio=config.camera_mlp_ratio,
            layer_scale=layer_scale,
            start=config.camera_start,
        )

        def dense_head(out: int) -> DPTHead:
            return DPTHead(
                width,
                out,
                dim=config.dpt_dim,
                stages=config.dpt_stage_channels,
                hidden=config.dpt_hidden,
                factors=config.dpt_factors,
            )

        self.point_head = dense_head(4)
        self.depth_head = dense_head(2)
        if config.output_bias is not None:
            self.depth_head.start_at(config.output_bias[:2])
            self.point_head.start_at(config.output_bias[2:])
            self.camera_head.start_small()

    def cameras(self, taps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Pose encodings (B, S, 9) of all passes, from the camera tokens of the last tap."""
        with torch.autocast(taps[-1].device.type, enabled=False):
            encodings: list[torch.Tensor] = self.camera_head(taps[-1][:, :, 0].float())
        return encodings

    def maps(
        self,
        taps: Sequence[torch.Tensor],
        grid: tuple[int, int],
        size: tuple[int, int],
        *,
        frames: slice | None = None,
    ) -> DenseMaps:
        """Maps of some frames.

        Args:
            taps: four (B, S, 1 + registers + h*w, width) tensors.
            grid: (h, w) of their tokens.
            size: (H, W) of the maps.
            frames: which of the S frames; all when None. Other frames are not computed.

        Returns:
            Maps of K = B * (number of frames) pictures, clip by clip.
        """
        picked = [
            tap[:, frames or slice(None), self.special :].flatten(0, 1).float() for tap in taps
        ]
        with torch.autocast(picked[0].device.type, enabled=False):
            depth = self.depth_head(picked, grid, size)
            points = self.point_head(picked, grid, size)
        xyz = points[:, :3].permute(0, 2, 3, 1)
        return DenseMaps(
            depth=depth[:, 0].exp(),
            depth_confidence=1 + depth[:, 1].exp(),
            points=xyz.sign() * torch.expm1(xyz.abs()),
            points_confidence=1 + points[:, 3].exp(),
        )

    def geometry(
        self,
        taps: Sequence[torch.Tensor],
        grid: tuple[int, int],
        size: tuple[int, int],
        *,
        chunk: int | None = None,
    ) -> Geometry:
        """Maps and cameras of all frames.

        Args:
            taps: four (B, S, 1 + registers + h*w, width) tensors.
            grid: (h, w) of their tokens.
            size: (H, W) of the maps.
            chunk: frames whose maps are computed at a time, which bounds memory; all when None.
        """
        batch, count = taps[0].shape[:2]
        step = chunk or count
        parts = [
            [
                field.reshape(batch, -1, *field.shape[1:])
                for field in self.maps(taps, grid, size, frames=slice(at, at + step))
            ]
            for at in range(0, count, step)
        ]
        depth, depth_confidence, points, points_confidence = (
            torch.cat(fields, dim=1) for fields in zip(*parts, strict=True)
        )
        return Geometry(depth, depth_confidence, points, points_confidence, self.cameras(taps))
