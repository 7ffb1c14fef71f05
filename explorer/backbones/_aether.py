"""Aether: CogVideoX fine-tuned on video, disparity and camera rays together (Zhu et al., 2025).

Noisy channels, in this order: the video's latents (16), those of its disparity (16), and the ray
map of the four frames of a slot (4 x 6). Conditions, free of noise: latents of known video (16) and
known rays (24), zeros where nothing is known. Features are read with the first frame as the known
video and no known rays, the inputs of the model's task "prediction".
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from explorer._typing import Float
from explorer.backbones._aether_published import RAYS
from explorer.backbones._cogvideox import CogVideoXBackbone
from explorer.backbones._hooks import checked_before

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.noise import NoiseLevel

STEPS = 4
"""Of the reconstruction, as in the model's own pipeline."""
SEED = 0
"""Of the reconstruction's noise: it is part of the latents, which know no seed."""
# CogVideoX-5b-I2V's scheduler_config.json, in the solver that the model's own pipeline takes.
SOLVER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "snr_shift_scale": 1.0,
    "steps_offset": 0,
    "timestep_spacing": "trailing",
}


class AetherBackbone(CogVideoXBackbone):
    """Aether's transformer with the VAE of CogVideoX-5b-I2V.

    The recipe's `geometry` decides what the clean latents of disparity and rays are. With it they
    are what the model itself reconstructs from the whole clip in four steps, as in the released
    feature extraction: the features then see a prediction of the geometry that they are probed for.
    Without it they are zero, so that at any noise level these channels hold scaled noise alone.
    """

    @property
    def latent_channels(self) -> int:
        return super().latent_channels + (self.geometry_channels if self.recipe.geometry else 0)

    @property
    def geometry_channels(self) -> int:
        """Channels of disparity and rays."""
        return int(self.vae.config.latent_channels) + RAYS

    def _encode(
        self, clip: Clip, should_stop: Callable[[], bool]
    ) -> Float[np.ndarray, "z S hl wl"]:
        latents = super()._encode(clip, should_stop)
        if not self.recipe.geometry:
            return latents
        video = self.entries(torch.from_numpy(latents)[None].to(self.device))
        geometry = self.reconstruct(video, should_stop).flatten(0, 1).transpose(0, 1).cpu().numpy()
        unknown = np.zeros_like(geometry[:, : latents.shape[1] - geometry.shape[1]])
        return np.concatenate([latents, np.concatenate([unknown, geometry], axis=1)])

    @torch.inference_mode()
    def reconstruct(
        self, video: Float[torch.Tensor, "B s z h w"], should_stop: Callable[[], bool]
    ) -> Float[torch.Tensor, "B s g h w"]:
        """Latents of disparity and rays, sampled with the whole video known; no guidance.

        Raises:
            Cancelled: `should_stop` became true; asked before each block of each step.
        """
        import diffusers

        library: Any = diffusers
        solver = library.CogVideoXDPMScheduler(**SOLVER)
        solver.set_timesteps(STEPS)
        generator = torch.Generator("cpu").manual_seed(SEED)
        size, slots, channels, *rest = video.shape
        known = torch.cat([video, video.new_zeros(size, slots, RAYS, *rest)], dim=2)
        shape = (size, slots, channels + self.geometry_channels, *rest)
        sample = torch.randn(shape, generator=generator).to(video.device)
        earlier: tuple[Any, Any] = (None, None)
        with ExitStack() as stack:
            for block in self.blocks:
                stack.enter_context(checked_before(block, should_stop))
            for step in solver.timesteps:
                velocity = self.forward(torch.cat([sample, known], dim=2), float(step)).float()
                sample, clean = solver.step(
                    velocity, earlier[1], step, earlier[0], sample, generator=generator
                )
                earlier = (step, clean)
        return sample[:, :, channels:]

    def with_noise(
        self, clean: Float[torch.Tensor, "1 z S h w"], seed: int, level: NoiseLevel
    ) -> Float[torch.Tensor, "1 y S h w"]:
        if not self.recipe.geometry:
            shape = (1, self.geometry_channels, *clean.shape[2:])
            clean = torch.cat([clean, clean.new_zeros(shape)], dim=1)
        return super().with_noise(clean, seed, level)

    def conditions(
        self, image: Float[torch.Tensor, "i c h w"], clips: Float[torch.Tensor, "B s c h w"]
    ) -> Float[torch.Tensor, "B s k h w"]:
        video = super().conditions(image, clips)
        return torch.cat([video, torch.zeros_like(clips[:, :, :RAYS])], dim=2)
