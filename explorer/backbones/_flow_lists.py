"""Flow matching at any noise level, with the lists that samplers of two families walk down.

x_t = (1 - sigma) x_0 + sigma eps. The official index is the nearest entry of the sampler's list of
1,000 steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from explorer._typing import Float
from explorer.noise import STEPS, FlowSchedule, NoiseLevel

_FLOW = FlowSchedule(1.0)


class ListedFlow(ABC):
    """What the two have in common."""

    @property
    @abstractmethod
    def sigmas(self) -> Float[np.ndarray, " N"]:
        """(1000,) float64 descending sigmas."""

    def timestep(self, sigma: float) -> float:
        """The number that the model is given."""
        return STEPS * sigma

    def at_index(self, index: int) -> NoiseLevel:
        """The level of one list position. Raises BackboneError outside 0 to 999."""
        _FLOW.at_index(index)
        return self._level(float(self.sigmas[index]), index)

    def at_sigma(self, sigma: float) -> NoiseLevel:
        """Exactly this sigma. Raises BackboneError outside [0, 1]."""
        _FLOW.at_sigma(sigma)
        return self._level(sigma, int(np.argmin(np.abs(self.sigmas - sigma))))

    def _level(self, sigma: float, index: int) -> NoiseLevel:
        level = _FLOW.at_sigma(sigma)
        return replace(level, timestep=self.timestep(sigma), official_index=index)


@dataclass(frozen=True)
class LTXSchedule(ListedFlow):
    """LTX-Video: a list shifted by the number of tokens and stretched to end at `terminal`.

    The numbers are those of the published scheduler's configuration.

    Attributes:
        tokens: of the clip.
        terminal: last entry of the list; lower noise levels are possible and have its index.
    """

    tokens: int
    terminal: float = 0.1

    @cached_property
    def sigmas(self) -> Float[np.ndarray, " N"]:
        """(1000,) float64 descending sigmas."""
        # a line through (1024 tokens, 0.95) and (4096 tokens, 2.05)
        shift = math.exp(0.95 + (self.tokens - 1024) * (2.05 - 0.95) / (4096 - 1024))
        straight = np.linspace(1.0, 1.0 / STEPS, STEPS)
        shifted = shift * straight / (1 + (shift - 1) * straight)
        return 1.0 - (1.0 - shifted) * (1.0 - self.terminal) / (1.0 - shifted[-1])


@dataclass(frozen=True)
class MochiSchedule(ListedFlow):
    """Mochi counts time from noise to data: timestep = 1000 (1 - sigma).

    The first half of its list falls in a straight line by `threshold`, the second as a parabola.

    Attributes:
        threshold: below 1, where the line ends.
    """

    threshold: float = 0.025

    @cached_property
    def sigmas(self) -> Float[np.ndarray, " N"]:
        """(1000,) float64 descending sigmas."""
        half = STEPS // 2
        rise = half - self.threshold * STEPS
        bend = rise / (half * half**2)
        slope = self.threshold / half - 2 * rise / half**2
        step = np.arange(STEPS)
        late = bend * step**2 + slope * step + bend * half**2
        return 1.0 - np.where(step < half, step * self.threshold / half, late)

    def timestep(self, sigma: float) -> float:
        return STEPS * (1.0 - sigma)
