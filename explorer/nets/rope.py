"""Two-dimensional rotary position embedding (RoPE) of a token grid.

The first half of a head's channels is rotated by the token's row, the second half by its column;
inside each half, channel i is paired with channel i + half/2 (rotate-half). Base 100, grid
positions start at 1, and special tokens sit at position 0, where the rotation is the identity;
networks without special tokens count their grid from 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from explorer._typing import Float


class Rotation(NamedTuple):
    """Cosines and sines of one sequence of tokens.

    Attributes:
        cos: (N, head_dim) cosines.
        sin: (N, head_dim) sines.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def repeat(self, count: int) -> Rotation:
        """The same rotation for `count` sequences that are laid end to end."""
        return Rotation(self.cos.repeat(count, 1), self.sin.repeat(count, 1))


def grid_rotation(
    grid: tuple[int, int],
    head_dim: int,
    *,
    special: int = 0,
    base: float = 100.0,
    start: int = 1,
    device: torch.device | None = None,
) -> Rotation:
    """The rotation of `special` unrotated tokens followed by a row-major grid.

    Args:
        grid: (h, w) rows and columns.
        head_dim: channels of one attention head; a multiple of 4.
        special: tokens in front of the grid, at position 0.
        base: of the geometric series of frequencies.
        start: position of the first row and of the first column.
        device: where the tables live; they are float32.

    Raises:
        ValueError: head_dim is not a multiple of 4.
    """
    if head_dim % 4:
        raise ValueError(f"2D rotary positions need heads of 4k channels, got {head_dim}")
    rows, columns = grid
    quarter = head_dim // 4
    frequency = base ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    row = torch.arange(rows, device=device, dtype=torch.float32) + start
    column = torch.arange(columns, device=device, dtype=torch.float32) + start
    row, column = row.repeat_interleave(columns), column.repeat(rows)
    by_row, by_column = row[:, None] * frequency, column[:, None] * frequency
    angle = torch.cat([by_row, by_row, by_column, by_column], dim=1)
    angle = torch.cat([angle.new_zeros(special, head_dim), angle], dim=0)
    return Rotation(angle.cos(), angle.sin())


def rotate(x: Float[torch.Tensor, "B A N D"], rotation: Rotation) -> Float[torch.Tensor, "B A N D"]:
    """Queries or keys (batch, heads, N, head_dim) turned by the positions of their tokens."""
    a, b, c, d = x.chunk(4, dim=-1)
    turned = torch.cat([-b, a, -d, c], dim=-1)
    return x * rotation.cos + turned * rotation.sin
