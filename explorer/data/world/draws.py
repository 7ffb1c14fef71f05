"""Uniform numbers for a batch of seeds, taken in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from explorer._typing import Float

_BLOCK = 1536  # uniforms in a scene; more than any scene takes


class Draws:
    """One block of PCG64 uniforms a seed, handed out column by column."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._block = np.stack(
            [np.random.Generator(np.random.PCG64(int(seed))).random(_BLOCK) for seed in seeds]
        )
        self._next = 0
        self.count = len(seeds)

    def many(self, columns: int) -> Float[np.ndarray, "B K"]:
        """(B, columns) uniforms in [0, 1)."""
        if self._next + columns > _BLOCK:
            raise ValueError(f"a scene takes more than {_BLOCK} numbers")
        taken = self._block[:, self._next : self._next + columns]
        self._next += columns
        return taken

    def one(self) -> Float[np.ndarray, " B"]:
        """(B,) uniforms in [0, 1)."""
        return self.many(1)[:, 0]

    def span(self, low: float | int, high: float | int) -> Float[np.ndarray, " B"]:
        """(B,) uniforms in [low, high)."""
        return low + (high - low) * self.one()
