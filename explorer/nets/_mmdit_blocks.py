"""Blocks of the multimodal diffusion transformer: two streams that attend jointly, then one.

Every block takes and returns the joint sequence, text tokens first, so that a reader of block
outputs meets one shape everywhere. Following Esser et al. 2024 (arXiv 2403.03206) with the rotary
positions and the parallel single-stream block of Open-Sora 2.0 (arXiv 2503.09642).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from explorer._typing import Float
from explorer.nets._mmdit_tokens import rotate_half
from explorer.nets.rope import Rotation

EPS = 1e-6


class Conditioning(NamedTuple):
    """What every block is told beside its tokens.

    Attributes:
        vector: (B, D) embedding of the timestep and the pooled text.
        rotation: rotary positions of the joint sequence.
        text: number of text tokens at the front of it.
    """

    vector: torch.Tensor
    rotation: Rotation
    text: int


class Modulated(NamedTuple):
    """Shift, scale and gate of one residual branch, each (B, 1, D)."""

    shift: torch.Tensor
    scale: torch.Tensor
    gate: torch.Tensor


def modulate(
    x: Float[torch.Tensor, "B N D"],
    shift: Float[torch.Tensor, "B 1 D"],
    scale: Float[torch.Tensor, "B 1 D"],
) -> Float[torch.Tensor, "B N D"]:
    """(B, N, D) normalised tokens, scaled and shifted."""
    return x * (1 + scale) + shift


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned scale, computed in float32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))
        self.eps = EPS

    def forward(self, x: Float[torch.Tensor, "*n D"]) -> Float[torch.Tensor, "*n D"]:
        """(..., D) normalised over D, in the dtype of x."""
        return F.rms_norm(x.float(), self.scale.shape, self.scale.float(), self.eps).to(x.dtype)


class QKNorm(nn.Module):
    """Norms of queries and keys over the channels of a head."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.query_norm = RMSNorm(head_dim)
        self.key_norm = RMSNorm(head_dim)


class JointAttention(nn.Module):
    """Softmax attention; it has no weights.

    It is a module so that a forward pre-hook can read its arguments: queries and keys of the joint
    sequence as the products see them, after norm and rotary positions.
    """

    def forward(
        self,
        q: Float[torch.Tensor, "B A N D"],
        k: Float[torch.Tensor, "B A N D"],
        v: Float[torch.Tensor, "B A N D"],
    ) -> Float[torch.Tensor, "B N E"]:
        """(B, N, heads * head_dim) of (B, heads, N, head_dim) queries, keys and values."""
        return rearrange(F.scaled_dot_product_attention(q, k, v), "b a n d -> b n (a d)")


class Modulation(nn.Module):
    """Shift, scale and gate of `branches` residual branches from the conditioning vector."""

    def __init__(self, dim: int, branches: int) -> None:
        super().__init__()
        self.branches = branches
        self.lin = nn.Linear(dim, 3 * branches * dim)

    def forward(self, vector: Float[torch.Tensor, "B D"]) -> list[Modulated]:
        """One `Modulated` for each branch."""
        parts = self.lin(F.silu(vector))[:, None].chunk(3 * self.branches, dim=-1)
        return [Modulated(*parts[i : i + 3]) for i in range(0, len(parts), 3)]


class StreamAttention(nn.Module):
    """Projections of one stream into and out of the joint attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.norm = QKNorm(dim // heads)
        self.proj = nn.Linear(dim, dim)

    def project(self, x: Float[torch.Tensor, "B N D"]) -> tuple[torch.Tensor, ...]:
        """Normed queries, normed keys and values, each (B, heads, N, head_dim)."""
        q, k, v = (
            rearrange(projection(x), "b n (a d) -> b a n d", a=self.heads)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.norm.query_norm(q), self.norm.key_norm(k), v


class DoubleStreamBlock(nn.Module):
    """Text and image tokens with weights of their own that meet in one attention.

    `attention` is called as attention(q, k, v), see `JointAttention`.
    """

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()

        def mlp() -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(dim, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, dim)
            )

        self.img_mod = Modulation(dim, 2)
        self.img_attn = StreamAttention(dim, heads)
        self.img_mlp = mlp()
        self.txt_mod = Modulation(dim, 2)
        self.txt_attn = StreamAttention(dim, heads)
        self.txt_mlp = mlp()
        self.norm = nn.LayerNorm(dim, eps=EPS, elementwise_affine=False)
        self.attention = JointAttention()

    def forward(
        self, tokens: Float[torch.Tensor, "B N D"], given: Conditioning
    ) -> Float[torch.Tensor, "B N D"]:
        """(B, L + N, D) tokens after the block; the image stream is `[:, given.text:]`."""
        txt, img = tokens[:, : given.text], tokens[:, given.text :]
        txt_first, txt_second = self.txt_mod(given.vector)
        img_first, img_second = self.img_mod(given.vector)
        streams = zip(
            self.txt_attn.project(modulate(self.norm(txt), txt_first.shift, txt_first.scale)),
            self.img_attn.project(modulate(self.norm(img), img_first.shift, img_first.scale)),
            strict=True,
        )
        q, k, v = (torch.cat(pair, dim=2) for pair in streams)
        q, k = (
            rotate_half(q, given.rotation).to(v.dtype),
            rotate_half(k, given.rotation).to(v.dtype),
        )
        mixed = self.attention(q, k, v)
        txt = txt + txt_first.gate * self.txt_attn.proj(mixed[:, : given.text])
        img = img + img_first.gate * self.img_attn.proj(mixed[:, given.text :])
        inner = modulate(self.norm(txt), txt_second.shift, txt_second.scale)
        txt = txt + txt_second.gate * self.txt_mlp(inner)
        inner = modulate(self.norm(img), img_second.shift, img_second.scale)
        img = img + img_second.gate * self.img_mlp(inner)
        return torch.cat([txt, img], dim=1)


class SingleStreamBlock(nn.Module):
    """One set of weights for all tokens; attention and MLP run side by side on one input.

    `attention` is called as attention(q, k, v), see `JointAttention`.
    """

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.split = (dim, hidden)
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_mlp = nn.Linear(dim, dim + hidden)
        self.linear2 = nn.Linear(dim + hidden, dim)
        self.norm = QKNorm(dim // heads)
        self.modulation = Modulation(dim, 1)
        self.pre_norm = nn.LayerNorm(dim, eps=EPS, elementwise_affine=False)
        self.act = nn.GELU(approximate="tanh")
        self.attention = JointAttention()

    def forward(
        self, tokens: Float[torch.Tensor, "B N D"], given: Conditioning
    ) -> Float[torch.Tensor, "B N D"]:
        """(B, L + N, D) tokens after the block; image tokens are `[:, given.text:]`."""
        (branch,) = self.modulation(given.vector)
        inner = modulate(self.pre_norm(tokens), branch.shift, branch.scale)
        v, hidden = self.v_mlp(inner).split(self.split, dim=-1)
        q, k, v = (
            rearrange(x, "b n (a d) -> b a n d", a=self.heads)
            for x in (self.q_proj(inner), self.k_proj(inner), v)
        )
        q = rotate_half(self.norm.query_norm(q), given.rotation).to(v.dtype)
        k = rotate_half(self.norm.key_norm(k), given.rotation).to(v.dtype)
        both = torch.cat([self.attention(q, k, v), self.act(hidden)], dim=-1)
        out: torch.Tensor = tokens + branch.gate * self.linear2(both)
        return out
