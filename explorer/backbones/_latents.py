"""From frames to noisy latents of diffusers' Wan VAE, and the backbones that start there.

The functions take batches and know nothing of cards, locks or clips, so that probe training can
use them on many clips at once.

Noise follows the model's schedule (`explorer.noise`); for flow matching (Lipman et al., 2023) that
is x_t = (1 - sigma) x_0 + sigma eps.
"""

from __future__ import annotations

import dataclasses
import platform
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from explorer._typing import Float, UInt8
from explorer.backbones import _wan_vae
from explorer.backbones._delivery import as_float16
from explorer.backbones._hooks import checked_before
from explorer.backbones._wan_types import Vae
from explorer.backbones.base import Backbone, BackboneCard, never, resize_frames, slot_map
from explorer.errors import BackboneError
from explorer.features import Features
from explorer.noise import FlowSchedule, NoiseLevel, Schedule
from explorer.toy.config import FLOW_SHIFT

if TYPE_CHECKING:
    from explorer.clip import Clip

SCHEDULE = FlowSchedule(FLOW_SHIFT)


def to_video(
    frames: UInt8[np.ndarray, "T H W 3"], device: str | torch.device = "cpu"
) -> Float[torch.Tensor, "1 3 T H W"]:
    """Frames as the VAE wants them: channels first, scaled to [-1, 1]."""
    video = torch.from_numpy(np.ascontiguousarray(frames)).to(device)
    return (video.permute(3, 0, 1, 2).float() / 127.5 - 1.0)[None].contiguous()


@torch.inference_mode()
def encode_video(
    vae: Vae,
    video: Float[torch.Tensor, "B 3 T H W"],
    *,
    slots: int | None = None,
    should_stop: Callable[[], bool] = never,
) -> Float[torch.Tensor, "B z S h w"]:
    """Posterior mean, normalised: (mean - latents_mean) / latents_std of the VAE's configuration.

    Args:
        vae: in any dtype.
        video: clips in [-1, 1].
        slots: latent slots in one pass, where `_wan_vae` covers the VAE; None: as it sees fit.
        should_stop: asked before each pass and before each block of it.

    Raises:
        Cancelled: `should_stop` became true.
    """
    video = video.to(vae.dtype)
    slots = slots or _wan_vae.slots_at_once(vae, video)
    with ExitStack() as stack:
        for part in (vae.encoder, *vae.encoder.down_blocks, vae.encoder.mid_block):
            stack.enter_context(checked_before(part, should_stop))
        if slots > 1:
            mean = _wan_vae.encode(vae, video, slots).chunk(2, dim=1)[0]
        else:
            # A pass that was cut short leaves activations of its frames on the module.
            stack.callback(vae.clear_cache)
            mean = vae.encode(video).latent_dist.mode()
    shape = (1, -1, 1, 1, 1)
    center = torch.tensor(vae.config.latents_mean, device=mean.device).view(shape)
    spread = torch.tensor(vae.config.latents_std, device=mean.device).view(shape)
    normalised: torch.Tensor = (mean.float() - center) / spread
    return normalised


def gaussian_noise(shape: Sequence[int], seed: int) -> Float[torch.Tensor, "*shape"]:
    """Standard normal noise from a CPU generator, so that every device sees the same."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float32)


def add_noise(
    latents: Float[torch.Tensor, "*shape"], noise: Float[torch.Tensor, "*shape"], level: NoiseLevel
) -> Float[torch.Tensor, "*shape"]:
    """x_t = signal x_0 + noise eps; at sigma 0 exactly x_0, whatever the scheduler's last step."""
    if level.sigma == 0.0:
        return latents.clone()
    return level.signal * latents + level.noise * noise


def to_float16(tokens: torch.Tensor) -> np.ndarray:
    """float16 on the CPU, huge activations clamped."""
    return as_float16(tokens).cpu().numpy()


class LatentModel(Backbone):
    """A backbone that sees a clip through the Wan VAE; what it does with latents is `read`."""

    def __init__(
        self,
        card: BackboneCard,
        vae: Vae,
        *,
        weights_hash: str,
        encoder_hash: str | None,
        provenance: dict[str, Any],
        schedule: Schedule = SCHEDULE,
    ) -> None:
        super().__init__(card)
        self.schedule = schedule
        self.vae = vae.eval().requires_grad_(False)
        self.device: torch.device = next(vae.parameters()).device
        self._weights_hash = weights_hash
        self._encoder_hash = encoder_hash
        self._provenance = provenance
        self._noise: tuple[object, torch.Tensor] | None = None

    @property
    def weights_hash(self) -> str:
        return self._weights_hash

    @property
    def encoder_hash(self) -> str | None:
        return self._encoder_hash

    def timestep(self, sigma: float) -> tuple[float, int]:
        level = self.schedule.at_sigma(sigma)
        return level.timestep, level.official_index

    def level(self, sigma: float) -> NoiseLevel:
        """The schedule's level for a noise level; at sigma 0 its cleanest timestep, no noise."""
        level = self.schedule.at_sigma(sigma)
        return dataclasses.replace(level, sigma=sigma)

    def with_noise(
        self, clean: Float[torch.Tensor, "1 z S hl wl"], seed: int, level: NoiseLevel
    ) -> Float[torch.Tensor, "1 z S hl wl"]:
        """Latents as `read` gets them; models with conditions keep these free of noise."""
        return add_noise(clean, self._seeded_noise(clean.shape, seed), level)

    @abstractmethod
    def read(
        self,
        noisy: Float[torch.Tensor, "1 z S hl wl"],
        timestep: float,
        *,
        layers: Sequence[int],
        slot_frames: np.ndarray,
        tap: str,
        should_stop: Callable[[], bool],
    ) -> dict[int, np.ndarray]:
        """(S, h, w, C) float16 of each wanted layer; the caller holds the lock."""

    def prepare(self, clip: Clip, should_stop: Callable[[], bool]) -> None:
        """Whatever `read` needs of the clip besides its latents, such as its first frame.

        Called before every `read` by the holder of the lock; models without a condition need none.
        """

    def encode(
        self, clip: Clip, *, should_stop: Callable[[], bool] = never
    ) -> Float[np.ndarray, "z S hl wl"]:
        self.check(clip, [0], 0.0)
        with self.hold(should_stop):
            return self._encode(clip, should_stop)

    def extract(
        self,
        clip: Clip,
        *,
        layers: Sequence[int],
        sigma: float,
        seed: int = 0,
        latents: Float[np.ndarray, "z S hl wl"] | None = None,
        tap: str = "block",
        should_stop: Callable[[], bool] = never,
    ) -> dict[int, Features]:
        self.check(clip, layers, sigma, tap=tap)
        if latents is not None:
            self.check_latents(clip, latents)
        level = self.level(sigma)
        with self.hold(should_stop):
            if latents is None:
                latents = self._encode(clip, should_stop)
            clean = torch.from_numpy(np.ascontiguousarray(latents))[None].to(self.device)
            noisy = self.with_noise(clean, seed, level)
            self.prepare(clip, should_stop)
            self.calls += 1
            values = self.read(
                noisy,
                level.timestep,
                layers=layers,
                slot_frames=self.slots(len(clip.frames))[1],
                tap=tap,
                should_stop=should_stop,
            )
        return self.features(
            values, clip, sigma=sigma, seed=seed, provenance=self._provenance, tap=tap
        )

    def _seeded_noise(self, shape: Sequence[int], seed: int) -> torch.Tensor:
        """Noise on the device; the last is kept, for a further noise level of the same seed."""
        wanted = (tuple(shape), seed)
        if self._noise is None or self._noise[0] != wanted:
            self._noise = wanted, gaussian_noise(shape, seed).to(self.device)
        return self._noise[1]

    def check_latents(self, clip: Clip, latents: Float[np.ndarray, "z S hl wl"]) -> None:
        """Refuse latents of another clip length, size or VAE.

        Raises:
            BackboneError: with the expected and the found shape.
        """
        expected = self.latent_shape(len(clip.frames))
        if latents.shape != expected:
            raise BackboneError(
                f"these latents have shape {latents.shape}; {self.card.id} needs {expected} for "
                "this clip: encode the clip again"
            )

    def latent_shape(self, frame_count: int) -> tuple[int, int, int, int]:
        """(z, S, hl, wl) of what `encode` gives for a clip."""
        slots = len(slot_map(frame_count, self.card.frame_step)[1])
        scale = self.vae.config.scale_factor_spatial
        height, width = self.card.input_size
        return self.vae.config.z_dim, slots, height // scale, width // scale

    def _encode(
        self, clip: Clip, should_stop: Callable[[], bool]
    ) -> Float[np.ndarray, "z S hl wl"]:
        """Latents of one clip; the caller holds the lock."""
        self.encoder_calls += 1
        video = to_video(resize_frames(clip.frames, self.card.input_size), self.device)
        latents = encode_video(self.vae, video, should_stop=should_stop)[0]
        return np.asarray(latents.cpu().numpy())


def compute_provenance(
    device: torch.device, dtype: torch.dtype, *, trained: bool
) -> dict[str, Any]:
    """Whatever may change the last bits of features, and whether the weights were trained."""
    import diffusers

    cuda = device.type == "cuda"
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if cuda else platform.machine(),
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "trained": trained,
    }
