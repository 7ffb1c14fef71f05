"""A Wan transformer that sees every frame by itself: what is left of it without time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from explorer._typing import Float
from explorer.backbones._latents import encode_video, to_float16, to_video
from explorer.backbones._wan import WanBackbone, block_outputs
from explorer.backbones.base import resize_frames

if TYPE_CHECKING:
    import torch

    from explorer.clip import Clip


class FrameWiseWan(WanBackbone):
    """Each slot's frame is encoded and passed as a clip of one frame.

    The slots are those of the video model, each standing for its first frame, so that the two are
    compared frame by frame.
    """

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
        return block_outputs(
            self.transformer,
            noisy[0].transpose(0, 1)[:, :, None],
            timestep,
            layers=layers,
            keep=lambda tokens: to_float16(tokens.unflatten(1, self.card.token_grid)),
            prompt=self.prompt,
            tap=tap,
            should_stop=should_stop,
        )

    def _encode(
        self, clip: Clip, should_stop: Callable[[], bool]
    ) -> Float[np.ndarray, "z S hl wl"]:
        self.encoder_calls += 1
        frames = clip.frames[self.slots(len(clip.frames))[1]]
        found = [
            encode_video(
                self.vae,
                to_video(frame, self.device),
                should_stop=should_stop,
            )[0, :, 0]
            for frame in resize_frames(frames, self.card.input_size)[:, None]
        ]
        return np.stack([latents.cpu().numpy() for latents in found], axis=1)
