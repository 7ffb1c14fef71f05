"""How CogVideoX is shown a clip: which frames go through it together, and which slot shows which.

The model's causal VAE gives one slot to the first frame and one to every four frames after it.

Consecutive, the default here: one pass over neighbouring frames; slot k holds frames 4k-3 to 4k.

Interleaved, as in the released feature extraction: two clips, frames 0, 1, 3, 5, ... and frames
0, 2, 4, ..., go through side by side; frame f > 0 is in clip (f - 1) % 2 at latent time
((f - 1) // 2) // 4 + 1. A slot then spans eight frames of the source. Mind the trap in it: whoever
asks only for frames 1, 5, 9, ... (as the released probes do) never reads the second clip, and
neighbours such as 1 and 5 get the same slot, so that two views of one sample may come with
identical features although they show different pictures. Frames 1 and 2, 9 and 10, ... differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer._typing import Int
from explorer.backbones.base import slot_map

STEP = 4
"""Frames in a slot of the VAE, after the first."""


@dataclass(frozen=True)
class Recipe:
    """What besides the weights decides what a model is shown.

    Attributes:
        interleaved: two clips of every other frame, as released, instead of one of all.
        first_frame: the first frame is also given as an image, without noise.
        pace: distance of neighbouring slots in the rotary time axis.
        geometry: the model's own reconstruction is part of the latents (Aether).
    """

    interleaved: bool = False
    first_frame: bool = False
    pace: float = 1.0
    geometry: bool = False

    @property
    def name(self) -> str:
        """All of it as one line, for hashes."""
        return f"{self.latents_name}, pace {self.pace}"

    @property
    def latents_name(self) -> str:
        """What of it changes the latents."""
        shown = f"interleaved {self.interleaved}, first frame {self.first_frame}"
        return f"{shown}, geometry {self.geometry}"

    @property
    def frame_step(self) -> int:
        """Frame counts must be 1 + a multiple of it."""
        return 2 * STEP if self.interleaved else STEP

    def clips(self, count: int) -> list[Int[np.ndarray, " T"]]:
        """Frames of each clip that goes through the model."""
        frames = np.arange(count)
        if not self.interleaved:
            return [frames]
        return [np.append(0, frames[1::2]), frames[::2]]

    def slots(self, count: int) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " S"]]:
        """(frame_to_slot, slot_frames), as `Backbone.slots`.

        Interleaved slots are in the order of time: slot 0 is that of frame 0 in the first clip,
        then come latent time 1 of the first clip, of the second, latent time 2 of the first, ...
        The second clip's slot of frame 0 is left out.
        """
        if not self.interleaved:
            return slot_map(count, STEP)
        frames = np.arange(count)
        clip, time = (frames - 1) % 2, (frames - 1) // 2 // STEP + 1
        frame_to_slot = np.where(frames == 0, 0, 2 * time - 1 + clip)
        times = np.arange(1, (count - 1) // (2 * STEP) + 1)
        first = 2 * STEP * (times - 1) + 1
        slot_frames = np.append(0, np.stack([first, first + 1], axis=1))
        return frame_to_slot.astype(np.int64), slot_frames.astype(np.int64)

    def merge(self, values: np.ndarray) -> np.ndarray:
        """(S, ...) in the order of `slots` from (clips, slots of each, ...)."""
        if not self.interleaved:
            return values[0]
        merged = np.empty((2 * values.shape[1] - 1, *values.shape[2:]), values.dtype)
        merged[0], merged[1::2], merged[2::2] = values[0, 0], values[0, 1:], values[1, 1:]
        return merged
