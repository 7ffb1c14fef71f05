"""Transformer blocks shared by the probe, the camera head and the feed-forward 3D experts.

Pre-LayerNorm, biased qkv, optional LayerNorm of queries and keys per head before the rotary
positions, LayerScale (optional) after both branches, exact (erf) GELU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from explorer._typing import Float
from explorer.nets.rope import Rotation, grid_rotation, rotate


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch (Touvron et al. 2021)."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Float[torch.Tensor, "*n D"]) -> Float[torch.Tensor, "*n D"]:
        """(..., D) x * gamma."""
        return x * self.gamma


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out or dim)

    def forward(self, x: Float[torch.Tensor, "*n D"]) -> Float[torch.Tensor, "*n E"]:
        """(..., dim) to (..., out)."""
        hidden: torch.Tensor = self.fc2(F.gelu(self.fc1(x)))
        return hidden


class ScaledProduct(nn.Module):
    """softmax(factor * q k^T / sqrt(head_dim)) v: a module, so that hooks can read q, k and v.

    A forward pre-hook receives (q, k, v), each (B, heads, N, head_dim), as the product uses them:
    after the norm per head and the rotation, where a network has those.
    """

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(
        self,
        q: Float[torch.Tensor, "B A N E"],
        k: Float[torch.Tensor, "B A N E"],
        v: Float[torch.Tensor, "B A N E"],
    ) -> Float[torch.Tensor, "B A N E"]:
        """(B, heads, N, head_dim) mixed values."""
        scale = None if self.factor == 1 else self.factor / q.shape[-1] ** 0.5
        return F.scaled_dot_product_attention(q, k, v, scale=scale)


class Attention(nn.Module):
    """Multi-head self-attention over a sequence.

    Args:
        dim: width of a token.
        heads: attention heads.
        qk_norm: LayerNorm of queries and keys over the head's channels.
        eps: of those norms.
        factor: multiplies the scale 1 / sqrt(head_dim) of the products.

    Raises:
        ValueError: `heads` does not divide `dim`.
    """

    def __init__(
        self, dim: int, heads: int, *, qk_norm: bool, eps: float = 1e-5, factor: float = 1.0
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide width {dim}")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        head_dim = dim // heads
        self.q_norm = nn.LayerNorm(head_dim, eps=eps) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(head_dim, eps=eps) if qk_norm else nn.Identity()
        self.product = ScaledProduct(factor)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Float[torch.Tensor, "B N D"], rotation: Rotation | None = None
    ) -> Float[torch.Tensor, "B N D"]:
        """(B, N, D) tokens; queries and keys are turned by `rotation` where there is one."""
        batch, count, dim = x.shape
        qkv = self.qkv(x).view(batch, count, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        # norms and rotation may have promoted q and k; attention wants one dtype
        mixed = self.product(q.to(v.dtype), k.to(v.dtype), v)
        out: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, count, dim))
        return out


class Block(nn.Module):
    """x + scale * attention(norm(x)), then x + scale * mlp(norm(x)).

    Args:
        dim: width of a token.
        heads: attention heads.
        mlp_ratio: hidden width of the MLP over `dim`.
        qk_norm: LayerNorm of queries and keys over the head's channels.
        layer_scale: initial LayerScale; None builds none.
        eps: of the two LayerNorms; those of queries and keys always have 1e-5.
        factor: multiplies the scale of the attention products.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        qk_norm: bool = False,
        layer_scale: float | None = 0.01,
        eps: float = 1e-5,
        factor: float = 1.0,
    ) -> None:
        super().__init__()

        def scale() -> nn.Module:
            return nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)

        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, qk_norm=qk_norm, factor=factor)
        self.ls1 = scale()
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.ls2 = scale()

    def forward(
        self, x: Float[torch.Tensor, "B N D"], rotation: Rotation | None = None
    ) -> Float[torch.Tensor, "B N D"]:
        """(B, N, D) tokens that have attended to each other."""
        x = x + self.ls1(self.attn(self.norm1(x), rotation))
        out: torch.Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class AlternatingAttention(nn.Module):
    """Pairs of a block within each frame and a block over all frames (VGGT, Wang et al. 2025).

    Every frame is prefixed by one camera token and a few register tokens. Both exist in two
    versions, for the first frame and for all others: the only sign of which camera is the origin.
    Frames carry no time embedding, so any number of them works.

    Args:
        dim: width of a token.
        heads: attention heads; dim / heads must be a multiple of 4.
        pairs: number of (frame, global) pairs of blocks.
        registers: register tokens per frame.
        mlp_ratio: hidden width of the MLPs over `dim`.
        layer_scale: initial LayerScale.
        rope_base: base of the rotary frequencies.
        token_std: standard deviation of the initial camera and register tokens.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        pairs: int,
        registers: int = 4,
        mlp_ratio: float = 4.0,
        layer_scale: float = 0.01,
        rope_base: float = 100.0,
        token_std: float = 1e-6,
    ) -> None:
        super().__init__()
        self.head_dim = dim // heads
        self.rope_base = rope_base
        self.special = 1 + registers
        self.camera_token = nn.Parameter(torch.randn(1, 2, 1, dim) * token_std)
        self.register_token = nn.Parameter(torch.randn(1, 2, registers, dim) * token_std)

        def block() -> Block:
            return Block(dim, heads, mlp_ratio=mlp_ratio, qk_norm=True, layer_scale=layer_scale)

        self.frame_blocks = nn.ModuleList(block() for _ in range(pairs))
        self.global_blocks = nn.ModuleList(block() for _ in range(pairs))

    def alternate(
        self,
        patches: Float[torch.Tensor, "B S N D"],
        grid: tuple[int, int],
        *,
        keep: Sequence[int] | None = None,
    ) -> list[torch.Tensor]:
        """Outputs of the pairs.

        Args:
            patches: (B, S, h*w, D) tokens of S frames, row-major.
            grid: (h, w).
            keep: pairs whose output is returned, in ascending order; all when None.

        Returns:
            One (B, S, 1 + registers + h*w, 2D) tensor per kept pair: frame-attention output, then
            global-attention output, concatenated. Token 0 is the camera's.
        """
        batch, frames, _, dim = patches.shape
        special = torch.cat([self.camera_token, self.register_token], dim=2)
        others = special[:, 1:].expand(-1, frames - 1, -1, -1)
        prefix = torch.cat([special[:, :1], others], dim=1).expand(batch, -1, -1, -1)
        x = torch.cat([prefix.to(patches.dtype), patches], dim=2)
        count = x.shape[2]
        rotation = grid_rotation(
            grid, self.head_dim, special=self.special, base=self.rope_base, device=x.device
        )
        everywhere = rotation.repeat(frames)
        taps = []
        pairs = zip(self.frame_blocks, self.global_blocks, strict=True)
        for index, (frame_block, global_block) in enumerate(pairs):
            within = frame_block(x.reshape(batch * frames, count, dim), rotation)
            across = global_block(within.reshape(batch, frames * count, dim), everywhere)
            x = across.reshape(batch, frames, count, dim)
            if keep is None or index in keep:
                within = within.reshape(batch, frames, count, dim)
                taps.append(torch.cat([within, x], dim=-1))
        return taps
