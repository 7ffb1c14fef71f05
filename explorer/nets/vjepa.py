"""The video encoder of V-JEPA 1: clips to space-time tokens (Bardes et al. 2024, arXiv 2404.08471).

A plain ViT over tubelets of two frames, with a positional table that is stored in the checkpoint
and resized trilinearly to clips of other sizes. Module names are those of the released file, which
holds them under `CHECKPOINT_KEY` with `CHECKPOINT_PREFIXES` in front.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from explorer._typing import Float
from explorer.nets.attention import Block

CHECKPOINT_KEY = "encoder"
CHECKPOINT_PREFIXES = ("module.", "backbone.")


@dataclass(frozen=True, kw_only=True)
class VideoViTConfig:
    """Sizes of a V-JEPA 1 encoder; the defaults are those of the released ViT-H/16-384.

    Attributes:
        size: height and width of the frames that positions are stored for.
        frames: number of frames that they are stored for.
        patch: side of a patch in pixels.
        tubelet: frames that share one token.
        dim: width of a token.
        depth: blocks.
        heads: attention heads.
        mlp_ratio: hidden width of the MLPs over `dim`.
        uniform_power: whether time, rows and columns get equal parts of the channels of an
            untrained positional table, or a half and two quarters.
    """

    size: int = 384
    frames: int = 16
    patch: int = 16
    tubelet: int = 2
    dim: int = 1280
    depth: int = 32
    heads: int = 16
    mlp_ratio: float = 4.0
    uniform_power: bool = True


class TubeletEmbed(nn.Module):
    """Non-overlapping boxes of frames x rows x columns to tokens."""

    def __init__(self, dim: int, tubelet: int, patch: int) -> None:
        super().__init__()
        box = (tubelet, patch, patch)
        self.proj = nn.Conv3d(3, dim, box, stride=box)

    def forward(self, video: Float[torch.Tensor, "B 3 T H W"]) -> Float[torch.Tensor, "B D t h w"]:
        """(B, D, T / tubelet, H / patch, W / patch) tokens."""
        tokens: torch.Tensor = self.proj(video)
        return tokens


class VideoViT(nn.Module):
    """Frames to tokens; the features are the last block's output, before any norm.

    `blocks` run in order, each called with and returning one (B, N, D) tensor, and nothing catches
    an exception raised in a hook. Block i's queries and keys are what `blocks[i].attn.product` is
    called with: (q, k, v), each (B, heads, N, dim / heads).
    """

    def __init__(self, config: VideoViTConfig) -> None:
        super().__init__()
        self.config = config
        side = config.size // config.patch
        self.native_grid = (config.frames // config.tubelet, side, side)
        self.patch_embed = TubeletEmbed(config.dim, config.tubelet, config.patch)
        table = sincos_3d(self.native_grid, config.dim, uniform_power=config.uniform_power)
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, mlp_ratio=config.mlp_ratio, layer_scale=None, eps=1e-6)
            for _ in range(config.depth)
        )
        # the released file holds it; features are read in front of it
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """The token grid (t, h, w) of a clip.

        Raises:
            ValueError: the clip is not made of whole tubelets.
        """
        tubelet, patch = self.config.tubelet, self.config.patch
        if not (frames and height and width) or frames % tubelet or height % patch or width % patch:
            raise ValueError(
                f"a clip of {frames} frames of {height}x{width} is not made of boxes of "
                f"{tubelet} frames and {patch}x{patch} pixels"
            )
        return frames // tubelet, height // patch, width // patch

    def positions(self, grid: tuple[int, int, int]) -> Float[torch.Tensor, "1 N D"]:
        """(1, t*h*w, D) positional embedding of a token grid (t, h, w)."""
        if grid == self.native_grid:
            return self.pos_embed
        box = self.pos_embed.reshape(1, *self.native_grid, -1).permute(0, 4, 1, 2, 3).float()
        # The factor between the grids is exactly the ratio of their sizes, so giving the sizes
        # samples at the same places and cannot round to a grid that is one token short.
        resized = F.interpolate(box, size=grid, mode="trilinear", align_corners=False)
        return resized.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)

    def forward(self, video: Float[torch.Tensor, "B 3 T H W"]) -> Float[torch.Tensor, "B N D"]:
        """Tokens of clips.

        Args:
            video: (B, 3, T, H, W) RGB, normalised with the mean and deviation of ImageNet; T is a
                multiple of the tubelet, H and W are multiples of the patch.

        Returns:
            (B, N, D) output of the last block, N in the order time, row, column.

        Raises:
            ValueError: the clip is not made of whole tubelets.
        """
        frames, height, width = video.shape[2:]
        grid = self.grid(frames, height, width)
        x: torch.Tensor = self.patch_embed(video).flatten(2).transpose(1, 2)
        x = x + self.positions(grid)
        for block in self.blocks:
            x = block(x)
        return x


def sincos_3d(
    grid: tuple[int, int, int], dim: int, *, uniform_power: bool
) -> Float[torch.Tensor, "1 N D"]:
    """The fixed table that V-JEPA's positions start from.

    Args:
        grid: (t, h, w).
        dim: channels; a multiple of 8, or of 2 with `uniform_power`.
        uniform_power: time, row and column take ceil(dim / 6) * 2 channels each, cut to `dim`
            together, instead of dim / 2, dim / 4 and dim / 4.

    Returns:
        (1, t*h*w, dim) float32: [sin, cos] of the positions 0, 1, 2, ... along time, then row,
        then column, base 10000.
    """
    widths = (-(-dim // 6) * 2,) * 3 if uniform_power else (dim // 2, dim // 4, dim // 4)
    axes = [torch.arange(size, dtype=torch.float64) for size in grid]
    parts = []
    for position, width in zip(torch.meshgrid(*axes, indexing="ij"), widths, strict=True):
        half = width // 2
        frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = position.reshape(-1, 1) * frequency
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=1)[None, :, :dim].float()
