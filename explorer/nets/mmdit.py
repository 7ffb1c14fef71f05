"""The video transformer of Open-Sora 2.0 (Peng et al. 2025, arXiv 2503.09642).

19 double-stream and 38 single-stream blocks, 11.89 B parameters in the released size. Latents of
the clip and condition channels (a mask and the latents of the first frame) become one token per
2x2 patch; text tokens precede them. Module names and shapes are those of the released model.

    given:  tokens (c, ph, pw) in the order t, row, column; text ids (0, 0, 0), image ids (t, y, x)
    blocks: every one returns the joint sequence (B, L + N, D), the L text tokens first
    out:    velocity of the flow, as latents
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from explorer._typing import Float
from explorer.nets._mmdit_blocks import (
    EPS,
    Conditioning,
    DoubleStreamBlock,
    SingleStreamBlock,
    modulate,
)
from explorer.nets._mmdit_tokens import (
    axes_rotation,
    first_frame_condition,
    pack,
    position_ids,
    schedule_of,
    unpack,
)

__all__ = [
    "MMDiT",
    "MMDiTConfig",
    "first_frame_condition",
    "pack",
    "position_ids",
    "schedule_of",
    "unpack",
]

# switches of the published configuration that select other networks than the released one
_RELEASED = {
    "qkv_bias": True,
    "guidance_embed": False,
    "cond_embed": True,
    "fused_qkv": False,
    "use_liger_rope": True,
}


@dataclass(frozen=True, kw_only=True)
class MMDiTConfig:
    """Sizes of the transformer, named as published; the defaults are Open-Sora 2.0's.

    Attributes:
        in_channels: channels of a token of latents, latent channels * patch_size ** 2.
        vec_in_dim: width of the pooled text vector (CLIP).
        context_in_dim: width of the text tokens (T5).
        hidden_size: width of a token.
        num_heads: attention heads.
        depth: double-stream blocks.
        depth_single_blocks: single-stream blocks after them.
        axes_dim: channels of a head that carry time, row and column.
        mlp_ratio: hidden width of the MLPs over `hidden_size`.
        theta: base of the rotary frequencies.
        patch_size: side of a patch of latents.
        timestep_sinusoid_width: channels of the timestep's sinusoids.
        timestep_factor: they encode the timestep times this.

    Raises:
        ValueError: the sizes do not fit each other.
    """

    in_channels: int = 64
    vec_in_dim: int = 768
    context_in_dim: int = 4096
    hidden_size: int = 3072
    num_heads: int = 24
    depth: int = 19
    depth_single_blocks: int = 38
    axes_dim: tuple[int, int, int] = (16, 56, 56)
    mlp_ratio: float = 4.0
    theta: int = 10000
    patch_size: int = 2
    timestep_sinusoid_width: int = 256
    timestep_factor: int = 1000

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"{self.num_heads} heads do not divide width {self.hidden_size}")
        head = self.hidden_size // self.num_heads
        if sum(self.axes_dim) != head or any(axis % 2 for axis in self.axes_dim):
            raise ValueError(f"axes_dim {self.axes_dim} must be even and add up to {head}")
        if self.in_channels % self.patch_size**2:
            raise ValueError(
                f"in_channels {self.in_channels} are not made of patches of {self.patch_size}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MMDiTConfig:
        """The configuration of a published dictionary.

        Raises:
            ValueError: it describes a variant that was not released, or sizes that do not fit.
            TypeError: a field is unknown.
        """
        for key, wanted in _RELEASED.items():
            if values.get(key, wanted) != wanted:
                raise ValueError(f"{key} must be {wanted}: no other variant has been released")
        sizes: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
            if key not in _RELEASED
        }
        return cls(**sizes)


def sinusoids(values: Float[torch.Tensor, " B"], width: int) -> Float[torch.Tensor, "B W"]:
    """(B, width) float32 [cosines, sines] with periods from 2 pi up to 10000 times that."""
    half = width // 2
    steps = torch.arange(half, device=values.device, dtype=torch.float32) / half
    angles = values.float()[:, None] * torch.exp(-math.log(10000.0) * steps)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Embedder(nn.Module):
    """Linear, SiLU, linear: a vector to the width of the tokens."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(width, dim)
        self.out_layer = nn.Linear(dim, dim)

    def forward(self, x: Float[torch.Tensor, "B W"]) -> Float[torch.Tensor, "B D"]:
        """(B, width) to (B, dim)."""
        out: torch.Tensor = self.out_layer(F.silu(self.in_layer(x)))
        return out


class FinalLayer(nn.Module):
    """Modulated norm and projection to the channels of a token of latents."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(dim, eps=EPS, elementwise_affine=False)
        self.linear = nn.Linear(dim, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(
        self, x: Float[torch.Tensor, "B N D"], vector: Float[torch.Tensor, "B D"]
    ) -> Float[torch.Tensor, "B N E"]:
        """(B, N, dim) to (B, N, out)."""
        shift, scale = self.adaLN_modulation(vector)[:, None].chunk(2, dim=-1)
        out: torch.Tensor = self.linear(modulate(self.norm_final(x), shift, scale))
        return out


class MMDiT(nn.Module):
    """Noisy latents, text and a first frame to the velocity of the flow.

    Inputs other than the timestep are expected in the dtype of the weights. The norms of queries
    and keys and their rotation are computed in float32 in any case.
    """

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.config = config
        dim, heads = config.hidden_size, config.num_heads
        hidden = int(dim * config.mlp_ratio)
        self.img_in = nn.Linear(config.in_channels, dim)
        self.time_in = Embedder(config.timestep_sinusoid_width, dim)
        self.vector_in = Embedder(config.vec_in_dim, dim)
        self.cond_in = nn.Linear(config.in_channels + config.patch_size**2, dim)
        self.txt_in = nn.Linear(config.context_in_dim, dim)
        self.double_blocks = nn.ModuleList(
            DoubleStreamBlock(dim, heads, hidden) for _ in range(config.depth)
        )
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(dim, heads, hidden) for _ in range(config.depth_single_blocks)
        )
        self.final_layer = FinalLayer(dim, config.in_channels)

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks in running order: first the double-stream, then the single-stream ones.

        Each is called as block(tokens, conditioning) and returns the joint sequence (B, L + N, D):
        the L text tokens, then the image tokens in the order time, row, column. In a double-stream
        block `[:, L:]` is its image stream. A forward hook on a block reads that; a forward
        pre-hook on `block.attention` reads (q, k, v), each (B, heads, L + N, head_dim), queries
        and keys after norm and rotary positions. An exception that a hook raises ends the pass.
        """
        return [*self.double_blocks, *self.single_blocks]

    def token_grid(self, latents: Float[torch.Tensor, "B C T h w"]) -> tuple[int, int, int]:
        """(t, rows, columns) of the image tokens of these latents."""
        _, _, frames, height, width = latents.shape
        return frames, height // self.config.patch_size, width // self.config.patch_size

    def embed(
        self,
        noisy: Float[torch.Tensor, "B C T h w"],
        timestep: Float[torch.Tensor, " B"],
        *,
        text: Float[torch.Tensor, "B L E"],
        pooled: Float[torch.Tensor, "B V"],
        condition: Float[torch.Tensor, "B K T h w"],
    ) -> tuple[Float[torch.Tensor, "B N D"], Conditioning]:
        """What the first block is called with; arguments and errors are those of `forward`."""
        patch = self.config.patch_size
        img = self.img_in(pack(noisy, patch)) + self.cond_in(pack(condition, patch))
        txt = self.txt_in(text)
        ids = position_ids(text.shape[1], self.token_grid(noisy), noisy.device)
        rotation = axes_rotation(ids, self.config.axes_dim, base=float(self.config.theta))
        scaled = self.config.timestep_factor * timestep.float()
        waves = sinusoids(scaled, self.config.timestep_sinusoid_width)
        vector = self.time_in(waves.to(pooled.dtype)) + self.vector_in(pooled)
        return torch.cat([txt, img], dim=1), Conditioning(vector, rotation, text.shape[1])

    def forward(
        self,
        noisy: Float[torch.Tensor, "B C T h w"],
        timestep: Float[torch.Tensor, " B"],
        *,
        text: Float[torch.Tensor, "B L E"],
        pooled: Float[torch.Tensor, "B V"],
        condition: Float[torch.Tensor, "B K T h w"],
    ) -> Float[torch.Tensor, "B C T h w"]:
        """Velocity of the latents.

        Args:
            noisy: (B, C, T, h, w) latents with noise; h and w multiples of the patch.
            timestep: (B,) in [0, 1], already shifted: the `timestep` of `schedule_of`'s levels.
            text: (B, L, context_in_dim) T5 states of the prompt.
            pooled: (B, vec_in_dim) CLIP vector of the prompt.
            condition: (B, 1 + C, T, h, w), see `first_frame_condition`.

        Raises:
            ValueError: height or width is not a multiple of the patch.
        """
        tokens, given = self.embed(noisy, timestep, text=text, pooled=pooled, condition=condition)
        for block in self.blocks:
            tokens = block(tokens, given)
        predicted = self.final_layer(tokens[:, given.text :], given.vector)
        return unpack(predicted, self.token_grid(noisy), self.config.patch_size)
