"""Noise levels of Stable Video Diffusion (Karras et al. 2022, arXiv 2206.00364)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from explorer._typing import Float
from explorer.noise import STEPS, FlowSchedule, NoiseLevel

RHO = 7.0
_CHECK = FlowSchedule(1.0)


@dataclass(frozen=True)
class SVDSchedule:
    """x = (x_0 + s eps) / sqrt(1 + s^2), with s from `lowest` to `highest`.

    That is what the network is given: sigma, the fraction of noise, is s / sqrt(1 + s^2). The
    timestep is ln(s) / 4. The official index is the nearest entry of a list of 1,000 steps that are
    even in s^(1/7).

    Attributes:
        lowest: least noise; less is run with its timestep.
        highest: most noise.
    """

    lowest: float = 0.002
    highest: float = 700.0

    @cached_property
    def ratios(self) -> Float[np.ndarray, " N"]:
        """(1000,) float64 descending s."""
        ends = [end ** (1 / RHO) for end in (self.highest, self.lowest)]
        return np.linspace(ends[0], ends[1], STEPS) ** RHO

    def at_index(self, index: int) -> NoiseLevel:
        """The level of one list position. Raises BackboneError outside 0 to 999."""
        _CHECK.at_index(index)
        ratio = float(self.ratios[index])
        return self._level(ratio / math.hypot(1.0, ratio), ratio)

    def at_sigma(self, sigma: float) -> NoiseLevel:
        """This sigma, within what the scheduler has. Raises BackboneError outside [0, 1]."""
        _CHECK.at_sigma(sigma)
        ratio = self.highest if sigma == 1.0 else sigma / math.sqrt((1.0 - sigma) * (1.0 + sigma))
        return self._level(sigma, min(max(ratio, self.lowest), self.highest))

    def _level(self, sigma: float, ratio: float) -> NoiseLevel:
        total = math.hypot(1.0, ratio)
        index = int(np.argmin(np.abs(self.ratios ** (1 / RHO) - ratio ** (1 / RHO))))
        return NoiseLevel(sigma, 0.25 * math.log(ratio), index, 1.0 / total, ratio / total)
