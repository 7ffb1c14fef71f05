"""sigma, timestep and official index: three names of one noise level, per scheduler.

Sigma in [0, 1] is the fraction of noise: the coefficient of the noise for flow matching,
sqrt(1 - abar) for schedulers that preserve the variance. The timestep is the number that the model
is given. The official index is what the released feature extraction code calls `--t`: a position
in the scheduler's descending list, so that index 0 is the most noisy.

A noisy latent is `level.signal * x0 + level.noise * eps`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from explorer._typing import Float, Int
from explorer.errors import BackboneError

STEPS = 1000


@dataclass(frozen=True)
class NoiseLevel:
    """One noise level.

    Attributes:
        sigma: fraction of noise in [0, 1].
        timestep: the number that the model is given.
        official_index: what the released code calls `--t` (see the schedule for its meaning).
        signal: coefficient of the clean latents.
        noise: coefficient of the noise.
    """

    sigma: float
    timestep: float
    official_index: int
    signal: float
    noise: float


@runtime_checkable
class Schedule(Protocol):
    """What every family of schedulers answers."""

    def at_index(self, index: int) -> NoiseLevel:
        """The level that the released code runs for `--t index`.

        Raises:
            BackboneError: there is no such index.
        """

    def at_sigma(self, sigma: float) -> NoiseLevel:
        """The level with this sigma, or the nearest one that the scheduler has.

        Raises:
            BackboneError: sigma is outside [0, 1].
        """


@dataclass(frozen=True)
class WanSchedule:
    """Wan 2.1: UniPC multistep with flow prediction and shifted sigmas, 1,000 inference steps.

    sigma = shift * s / (1 + (shift - 1) * s) over a descending list s. Timesteps are truncated to
    integers, so several noisy indices share one; the scheduler then finds its noise coefficient
    through the timestep and takes the second of the equal entries. `signal` and `noise` are what
    it applies, `sigma` is that of the index asked for.

    Attributes:
        shift: flow shift, 3 for Wan 2.1 at 480p.
        earlier_release: the list of scheduler releases up to early 2025, which differs by up to
            0.003 in sigma and 3 in the timestep.
    """

    shift: float = 3.0
    earlier_release: bool = False

    @cached_property
    def sigmas(self) -> Float[np.ndarray, " N"]:
        """(1000,) float64 descending sigmas."""
        if self.earlier_release:
            straight = (1 - 1 / STEPS) * (1 - np.arange(STEPS) / STEPS)
        else:
            straight = np.linspace(1.0, 1.0 / STEPS, STEPS + 1)[:-1]
        sigmas = self.shift * straight / (1 + (self.shift - 1) * straight)
        if sigmas[0] == 1.0:
            sigmas[0] -= 1e-6  # the scheduler avoids log(0) this way
        return sigmas

    @cached_property
    def timesteps(self) -> Int[np.ndarray, " N"]:
        """(1000,) int64 descending timesteps, with duplicates."""
        return (self.sigmas * STEPS).astype(np.int64)

    def at_index(self, index: int) -> NoiseLevel:
        """The level of one list position. Raises BackboneError outside 0 to 999."""
        _check_index(index, STEPS - 1)
        equal = np.flatnonzero(self.timesteps == self.timesteps[index])
        applied = float(self.sigmas[equal[1] if len(equal) > 1 else equal[0]])
        timestep = float(self.timesteps[index])
        return NoiseLevel(float(self.sigmas[index]), timestep, index, 1 - applied, applied)

    def at_sigma(self, sigma: float) -> NoiseLevel:
        """The level of the nearest list position. Raises BackboneError outside [0, 1]."""
        _check_sigma(sigma)
        return self.at_index(_nearest(self.sigmas, sigma))


@dataclass(frozen=True)
class FlowSchedule:
    """Flow matching at any sigma (`toy-wan`): timestep = 1000 sigma, no rounding.

    The official index is the nearest entry of Wan's list with the same shift.

    Attributes:
        shift: flow shift of that list.
    """

    shift: float = 3.0

    @cached_property
    def _list(self) -> WanSchedule:
        return WanSchedule(self.shift)

    def at_index(self, index: int) -> NoiseLevel:
        """The exact sigma of one list position. Raises BackboneError outside 0 to 999."""
        _check_index(index, STEPS - 1)
        sigma = float(self._list.sigmas[index])
        return NoiseLevel(sigma, STEPS * sigma, index, 1 - sigma, sigma)

    def at_sigma(self, sigma: float) -> NoiseLevel:
        """Exactly this sigma. Raises BackboneError outside [0, 1]."""
        _check_sigma(sigma)
        index = _nearest(self._list.sigmas, sigma)
        return NoiseLevel(sigma, STEPS * sigma, index, 1 - sigma, sigma)


@dataclass(frozen=True)
class CogVideoXSchedule:
    """CogVideoX: DDIM with scaled-linear betas, SNR shift and zero terminal SNR.

    x_t = sqrt(abar) x0 + sqrt(1 - abar) eps; sigma is sqrt(1 - abar). The SNR shift comes before
    the rescale to zero terminal SNR (Lin et al. 2024, "Common diffusion noise schedules and sample
    steps are flawed", algorithm 1).

    Attributes:
        snr_shift: 3 for the 2B model, 1 for 5B and the models derived from it.
    """

    snr_shift: float = 1.0

    @cached_property
    def signals(self) -> Float[np.ndarray, " N"]:
        """(1000,) float64 sqrt(abar), ascending in noise: entry t belongs to timestep t."""
        betas = np.linspace(0.00085**0.5, 0.012**0.5, STEPS) ** 2
        abar = np.cumprod(1 - betas)
        abar = abar / (self.snr_shift + (1 - self.snr_shift) * abar)
        root = np.sqrt(abar)
        return np.asarray((root - root[-1]) * root[0] / (root[0] - root[-1]), dtype=np.float64)

    def at_index(self, index: int) -> NoiseLevel:
        """The level of one list position. Raises BackboneError outside 0 to 999."""
        _check_index(index, STEPS - 1)
        timestep = STEPS - 1 - index
        signal = float(self.signals[timestep])
        noise = float(np.sqrt(1 - signal**2))
        return NoiseLevel(noise, float(timestep), index, signal, noise)

    def at_sigma(self, sigma: float) -> NoiseLevel:
        """The level of the nearest list position. Raises BackboneError outside [0, 1]."""
        _check_sigma(sigma)
        return self.at_index(_nearest(np.sqrt(1 - self.signals[::-1] ** 2), sigma))


@dataclass(frozen=True)
class OpenSoraSchedule:
    """Open-Sora 2.0: time shifted with the number of tokens, then plain flow matching.

    alpha = lin(tokens_per_frame) * sqrt(latent_frames), lin through (256, 1) and (4096, 3);
    sigma = alpha t / (1 + (alpha - 1) t). The model embeds 1000 sigma; its `timestep` is sigma.
    The released code takes the unshifted time t itself, not a list position: here the official
    index is t in thousandths, so index 0 is the clean end.

    Attributes:
        tokens_per_frame: spatial tokens of one latent frame (height * width / 4 of the latents).
        latent_frames: frames after the VAE.
    """

    tokens_per_frame: int
    latent_frames: int

    @property
    def alpha(self) -> float:
        """The shift."""
        per_token = (3.0 - 1.0) / (4096 - 256)
        spatial = 1.0 + per_token * (self.tokens_per_frame - 256)
        return float(spatial * self.latent_frames**0.5)

    def at_time(self, time: float) -> NoiseLevel:
        """The level of an unshifted time. Raises BackboneError outside [0, 1]."""
        if not 0.0 <= time <= 1.0:
            raise BackboneError(f"time {time} is outside [0, 1]")
        sigma = self.alpha * time / (1 + (self.alpha - 1) * time)
        noise = 1 - (1 - 1e-5) * (1 - sigma)
        return NoiseLevel(sigma, sigma, round(STEPS * time), 1 - sigma, noise)

    def at_index(self, index: int) -> NoiseLevel:
        """The level of a time in thousandths. Raises BackboneError outside 0 to 1000."""
        _check_index(index, STEPS)
        return self.at_time(index / STEPS)

    def at_sigma(self, sigma: float) -> NoiseLevel:
        """Exactly this sigma. Raises BackboneError outside [0, 1]."""
        _check_sigma(sigma)
        return self.at_time(sigma / (self.alpha - (self.alpha - 1) * sigma))


def _check_sigma(sigma: float) -> None:
    if not 0.0 <= sigma <= 1.0:
        raise BackboneError(f"sigma {sigma} is outside [0, 1]: it is the fraction of noise")


def _check_index(index: int, last: int) -> None:
    if not 0 <= index <= last:
        raise BackboneError(f"index {index} does not exist: choose one from 0 to {last}")


def _nearest(values: Float[np.ndarray, " N"], wanted: float) -> int:
    return int(np.argmin(np.abs(values - wanted)))
