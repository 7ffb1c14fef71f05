"""VGGT: frames in, depth, points and cameras out, in one pass (Wang et al. 2025, arXiv 2503.11651).

A DINOv2 embedder with registers, alternating frame/global attention, and the heads that the probe
has too. Module names are those of the published checkpoints; `without_tracks` drops the only part
of them that is not built here, the head that tracks points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from explorer._typing import Float
from explorer.nets.attention import AlternatingAttention, Block
from explorer.nets.geometry import Geometry, GeometryHeads, HeadsConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class VGGTConfig(HeadsConfig):
    """Sizes of a VGGT; the defaults are those of facebook/VGGT-1B.

    Attributes:
        dim: width of a token.
        heads: attention heads of the alternating blocks.
        pairs: (frame, global) pairs of blocks.
        registers: register tokens per frame, in the embedder and after it.
        mlp_ratio: hidden width of the MLPs over their width, outside the heads.
        rope_base: base of the rotary frequencies.
        layer_scale: initial LayerScale outside the embedder, where it is 1.
        token_std: standard deviation of the initial camera and register tokens.
        patch: side of a patch in pixels.
        native_grid: side of the token grid that the embedder's positions are stored for.
        embedder_depth: blocks of the embedder.
        embedder_heads: its attention heads.
        dpt_layers: the four pairs that the dense heads read.
    """

    dim: int = 1024
    heads: int = 16
    pairs: int = 24
    mlp_ratio: float = 4.0
    rope_base: float = 100.0
    layer_scale: float = 0.01
    token_std: float = 1e-6
    patch: int = 14
    native_grid: int = 37
    embedder_depth: int = 24
    embedder_heads: int = 16
    dpt_layers: tuple[int, ...] = (4, 11, 17, 23)


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, images: Float[torch.Tensor, "K 3 H W"]) -> Float[torch.Tensor, "K D h w"]:
        """(K, D, H / patch, W / patch) tokens."""
        tokens: torch.Tensor = self.proj(images)
        return tokens


class DinoEmbedder(nn.Module):
    """DINOv2 with registers (Darcet et al. 2024), read at its normalised patch tokens.

    Positions are learned on a square grid and resized (bicubic, antialiased) to the grid at hand.
    Register tokens carry none.
    """

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim, side = config.dim, config.native_grid
        self.native_grid = side
        self.registers = config.registers
        self.patch_embed = PatchEmbed(dim, config.patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + side * side, dim) * 0.02)
        self.register_tokens = nn.Parameter(torch.randn(1, config.registers, dim) * 0.02)
        # published checkpoints hold it; it is used only when DINOv2 itself is trained
        self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(dim, config.embedder_heads, mlp_ratio=config.mlp_ratio, layer_scale=1.0, eps=1e-6)
            for _ in range(config.embedder_depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def positions(self, grid: tuple[int, int]) -> Float[torch.Tensor, "1 N D"]:
        """(1, h*w, D) positional embedding of the patches of a grid (h, w)."""
        side = self.native_grid
        patches = self.pos_embed[:, 1:]
        if grid == (side, side):
            return patches
        square = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
        resized = F.interpolate(square, size=grid, mode="bicubic", antialias=True)
        return resized.flatten(2).transpose(1, 2).to(patches.dtype)

    def forward(self, images: Float[torch.Tensor, "K 3 H W"]) -> Float[torch.Tensor, "K N D"]:
        """(K, h*w, D) patch tokens of normalised images."""
        patches = self.patch_embed(images)
        grid = (patches.shape[-2], patches.shape[-1])
        x = patches.flatten(2).transpose(1, 2) + self.positions(grid)
        count = len(x)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(count, -1, -1)
        registers = self.register_tokens.expand(count, -1, -1)
        x = torch.cat([first.to(x.dtype), registers.to(x.dtype), x], dim=1)
        for block in self.blocks:
            x = block(x)
        tokens: torch.Tensor = self.norm(x)[:, 1 + self.registers :]
        return tokens


class Aggregator(AlternatingAttention):
    """Images to taps: embedder, then alternating attention."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__(
            config.dim,
            config.heads,
            pairs=config.pairs,
            registers=config.registers,
            mlp_ratio=config.mlp_ratio,
            layer_scale=config.layer_scale,
            rope_base=config.rope_base,
            token_std=config.token_std,
        )
        self.patch = config.patch
        self.patch_embed = DinoEmbedder(config)
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(
        self, images: Float[torch.Tensor, "B S 3 H W"], keep: tuple[int, ...] | None = None
    ) -> list[torch.Tensor]:
        """One (B, S, 1 + registers + h*w, 2 * dim) tensor per pair in `keep`, or per pair."""
        batch, count, _, height, width = images.shape
        normalised = ((images - self.mean) / self.std).flatten(0, 1)
        patches = self.patch_embed(normalised.to(self.camera_token.dtype))
        patches = patches.reshape(batch, count, *patches.shape[1:])
        return self.alternate(patches, (height // self.patch, width // self.patch), keep=keep)


class VGGT(GeometryHeads):
    """Images of one scene to depth, points and cameras, in the frame of the first camera.

    Raises:
        ValueError: `dpt_layers` are not four ascending pairs that end with the last one.
    """

    def __init__(self, config: VGGTConfig) -> None:
        layers = config.dpt_layers
        if (
            len(layers) != 4
            or sorted(set(layers)) != list(layers)
            or layers[-1] != config.pairs - 1
        ):
            raise ValueError(
                f"dpt_layers {layers} must be four ascending pairs, the last {config.pairs - 1}"
            )
        super().__init__(2 * config.dim, config, layer_scale=config.layer_scale)
        self.config = config
        self.aggregator = Aggregator(config)

    def trunk(self, images: Float[torch.Tensor, "B S 3 H W"]) -> list[torch.Tensor]:
        """The four taps that the heads read.

        Raises:
            ValueError: height or width is not a multiple of the patch.
        """
        height, width = images.shape[-2:]
        patch = self.config.patch
        if height % patch or width % patch:
            raise ValueError(f"images of {height}x{width} are not made of patches of {patch}")
        taps: list[torch.Tensor] = self.aggregator(images, self.config.dpt_layers)
        return taps

    def forward(
        self, images: Float[torch.Tensor, "B S 3 H W"], *, chunk: int | None = 8
    ) -> Geometry:
        """Geometry of S frames at the images' own size.

        Args:
            images: (B, S, 3, H, W) RGB in [0, 1]; H and W multiples of the patch.
            chunk: frames whose maps are computed at a time; does not change the result.

        Raises:
            ValueError: height or width is not a multiple of the patch.
        """
        height, width = images.shape[-2:]
        grid = (height // self.config.patch, width // self.config.patch)
        return self.geometry(self.trunk(images), grid, (height, width), chunk=chunk)


def without_tracks(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A published state dict less its `track_head.*`, which loads strictly into `VGGT`."""
    return {name: value for name, value in state.items() if not name.startswith("track_head.")}
