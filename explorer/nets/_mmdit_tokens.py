"""Latents to tokens of the multimodal diffusion transformer, and the positions of the tokens.

Text tokens come first and all sit at the position of the first image token, the origin.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange

from explorer._typing import Float, Int
from explorer.nets.rope import Rotation
from explorer.noise import OpenSoraSchedule


def pack(latents: Float[torch.Tensor, "B C T h w"], patch: int = 2) -> Float[torch.Tensor, "B N E"]:
    """(B, T * h/patch * w/patch, C * patch ** 2) tokens in the order time, row, column.

    The channels of a token are ordered (channel, row in the patch, column in the patch).

    Raises:
        ValueError: height or width is not a multiple of the patch.
    """
    height, width = latents.shape[-2:]
    if height % patch or width % patch:
        raise ValueError(f"latents of {height}x{width} are not made of patches of {patch}")
    return rearrange(latents, "b c t (h p) (w q) -> b (t h w) (c p q)", p=patch, q=patch)


def unpack(
    tokens: Float[torch.Tensor, "B N E"], grid: tuple[int, int, int], patch: int = 2
) -> Float[torch.Tensor, "B C T h w"]:
    """The inverse of `pack` for a token grid (t, rows, columns)."""
    t, h, w = grid
    return rearrange(
        tokens, "b (t h w) (c p q) -> b c t (h p) (w q)", t=t, h=h, w=w, p=patch, q=patch
    )


def first_frame_condition(
    first: Float[torch.Tensor, "B C 1 h w"], latent_frames: int
) -> Float[torch.Tensor, "B K T h w"]:
    """Condition channels that give the model the first frame of its clip.

    Args:
        first: (B, C, 1, h, w) latents of the first frame, encoded alone.
        latent_frames: T.

    Returns:
        (B, 1 + C, T, h, w): the mask, 1 on the first latent frame, then the latents of the first
        frame; zero on all other latent frames.
    """
    marked = torch.cat([torch.ones_like(first[:, :1]), first], dim=1)
    return F.pad(marked, (0, 0, 0, 0, 0, latent_frames - 1))


def position_ids(
    text: int, grid: tuple[int, int, int], device: torch.device | None = None
) -> Int[torch.Tensor, "N 3"]:
    """(L + N, 3) int64 (time, row, column) of L text tokens, all zero, then of a token grid."""
    axes = [torch.arange(count, device=device) for count in grid]
    image = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
    return F.pad(image, (0, 0, text, 0))


def schedule_of(grid: tuple[int, int, int]) -> OpenSoraSchedule:
    """Noise levels for a token grid (t, rows, columns): time is shifted by size and length."""
    t, h, w = grid
    return OpenSoraSchedule(tokens_per_frame=h * w, latent_frames=t)


def axes_rotation(
    positions: Int[torch.Tensor, "N A"], axes: Sequence[int], *, base: float
) -> Rotation:
    """Rotary positions in several axes, for `rotate_half` (float32, on the positions' device).

    Each axis gives half as many angles as it has channels; the angles of all axes, one after the
    other, fill half a head, and the other half has the same ones.

    Args:
        positions: (N, A) one position for each token and axis.
        axes: channels of a head for each axis; even numbers.
        base: of the geometric series of frequencies, started anew in each axis.
    """
    angles = []
    for axis, channels in enumerate(axes):
        exponent = torch.arange(0, channels, 2, dtype=torch.float64) / channels
        frequency = (base**-exponent).to(positions.device, torch.float32)
        angles.append(positions[:, axis, None] * frequency)
    half = torch.cat(angles, dim=1)
    angle = torch.cat([half, half], dim=1)
    return Rotation(angle.cos(), angle.sin())


def rotate_half(
    x: Float[torch.Tensor, "B A N D"], rotation: Rotation
) -> Float[torch.Tensor, "B A N D"]:
    """(B, heads, N, head_dim) turned: channel i is paired with i + head_dim / 2."""
    a, b = x.chunk(2, dim=-1)
    return x * rotation.cos + torch.cat([-b, a], dim=-1) * rotation.sin
