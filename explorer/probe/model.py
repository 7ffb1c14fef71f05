"""The shallow 3D probe: frozen features of one cell in, depth, points and cameras out.

LayerNorm and a linear projection, pairs of frame/global attention, two DPT heads and an iterative
camera head (VidFM3D, arXiv 2512.19949, section 3). The published probe and the `compact` one of
this project are two configurations of the same class; module names are those of the published
checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from explorer._typing import Float
from explorer.nets.attention import AlternatingAttention
from explorer.nets.geometry import DenseMaps, Geometry, GeometryHeads, HeadsConfig

ProbeOutput = Geometry


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(HeadsConfig):
    """Sizes of a probe; the defaults are the published ones.

    Attributes:
        in_channels: channels of the features.
        dim: width of the trunk.
        heads: attention heads of the trunk.
        pairs: (frame, global) pairs of blocks; the DPT heads read exactly four.
        mlp_ratio: hidden width of the trunk's MLPs over `dim`.
        rope_base: base of the rotary frequencies.
        layer_scale_init: initial LayerScale of trunk and camera head.
        token_std: standard deviation of the initial camera and register tokens.
        output_size: (H, W) of the maps for features on `grid`.
        grid: (h, w) that `output_size` belongs to; other grids get proportional maps. None gives
            `output_size` for any grid.
    """

    in_channels: int
    dim: int = 1024
    heads: int = 16
    pairs: int = 4
    mlp_ratio: float = 4.0
    rope_base: float = 100.0
    layer_scale_init: float = 0.01
    token_std: float = 1e-6
    output_size: tuple[int, int] = (294, 518)
    grid: tuple[int, int] | None = None

    @classmethod
    def compact(cls, in_channels: int) -> ProbeConfig:
        """At most 0.75 M parameters for up to 384 channels: it reads out, it does not compute.

        The maps are four times the token grid, and training starts at depth 1, points (0, 0, 1),
        confidence 2 and identical cameras with a field of view of about 50 degrees.
        """
        return cls(
            in_channels=in_channels,
            dim=64,
            heads=4,
            mlp_ratio=3.0,
            layer_scale_init=1.0,
            token_std=0.02,
            dpt_dim=24,
            dpt_stage_channels=(24, 24, 32, 32),
            dpt_hidden=24,
            dpt_factors=(2.0, 1.0, 1.0, 0.5),
            camera_dim=64,
            camera_depth=2,
            camera_heads=4,
            camera_mlp_ratio=2.0,
            camera_start=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.7, 1.1),
            output_size=(72, 128),
            grid=(18, 32),
            output_bias=(0.0, 0.0, 0.0, 0.0, 0.6931, 0.0),
        )

    def size_for(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the maps for features on a grid (h, w)."""
        if self.grid is None:
            return self.output_size
        (height, width), (rows, columns) = self.output_size, self.grid
        return round(height * grid[0] / rows), round(width * grid[1] / columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON card."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ProbeConfig:
        """The configuration of a JSON card.

        Raises:
            TypeError: a field is missing or unknown.
        """
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**fields)


class Trunk(AlternatingAttention):
    """Projection of the features and alternating attention."""

    def __init__(self, config: ProbeConfig) -> None:
        super().__init__(
            config.dim,
            config.heads,
            pairs=config.pairs,
            registers=config.registers,
            mlp_ratio=config.mlp_ratio,
            layer_scale=config.layer_scale_init,
            rope_base=config.rope_base,
            token_std=config.token_std,
        )
        self.input_proj = nn.Sequential(
            nn.LayerNorm(config.in_channels, eps=1e-5), nn.Linear(config.in_channels, config.dim)
        )

    def forward(self, features: Float[torch.Tensor, "B S h w C"]) -> list[torch.Tensor]:
        """One (B, S, 1 + registers + h*w, 2 * dim) tensor per pair."""
        _, _, rows, columns, _ = features.shape
        return self.alternate(self.input_proj(features.flatten(2, 3)), (rows, columns))


class Probe(GeometryHeads):
    """Features of S frames to depth, points and cameras.

    The trunk may run under bfloat16 autocast; the heads always run in float32.

    Raises:
        ValueError: the configuration does not have four pairs, or widths do not fit their heads.
    """

    def __init__(self, config: ProbeConfig) -> None:
        if config.pairs != 4:
            raise ValueError(f"the DPT heads read four pairs of blocks, not {config.pairs}")
        super().__init__(2 * config.dim, config, layer_scale=config.layer_scale_init)
        self.config = config
        self.backbone = Trunk(config)

    def trunk(self, features: Float[torch.Tensor, "B S h w C"]) -> list[torch.Tensor]:
        """Taps of the trunk, one (B, S, 1 + registers + h*w, 2 * dim) tensor per pair."""
        taps: list[torch.Tensor] = self.backbone(features)
        return taps

    def dense(
        self,
        taps: Sequence[torch.Tensor],
        grid: tuple[int, int],
        *,
        frames: slice | None = None,
        size: tuple[int, int] | None = None,
    ) -> DenseMaps:
        """Maps of some frames at the configuration's size unless another is given; see `maps`."""
        return self.maps(taps, grid, size or self.config.size_for(grid), frames=frames)

    def forward(
        self,
        features: Float[torch.Tensor, "B S h w C"],
        *,
        size: tuple[int, int] | None = None,
    ) -> ProbeOutput:
        """Maps and cameras of all frames of B clips, at (H, W) `size` or the configuration's."""
        grid = (features.shape[2], features.shape[3])
        return self.geometry(self.trunk(features), grid, size or self.config.size_for(grid))
