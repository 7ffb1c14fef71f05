"""Which frames of a clip a probe is given, after VidFM3D (arXiv 2512.19949): few, far apart, the
first always among them.

Nothing here has a state: frames follow from the scene, a seed and the number of the draw by way of
a hash, so that they are the same in any order, with any number of workers, in every process.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from explorer._typing import Int


@dataclass(frozen=True)
class ViewRule:
    """How frames are drawn; the defaults are the published ones.

    Frame 0 is always taken. The others start `interval` apart and are pushed back by sorted,
    uniform draws from what is left of `context`; then each is moved down to the first frame of its
    slot, {0} and {1 + step * m}.

    Attributes:
        views: frames a draw.
        interval: least distance before frames are moved to their slots.
        context: frames that are drawn from, from the first of the clip on.
        step: frames a slot (the latent time of the video model); 1 moves nothing.

    Raises:
        ValueError: the context is too short for the views, or a number is below 1.
    """

    views: int = 4
    interval: int = 5
    context: int = 76
    step: int = 4

    def __post_init__(self) -> None:
        if min(self.views, self.interval, self.context, self.step) < 1:
            raise ValueError(f"{self}: every number must be 1 or more")
        if self.interval < self.step:
            raise ValueError(
                f"an interval of {self.interval} frames could draw a slot of {self.step} twice"
            )
        if self.spare < 0:
            raise ValueError(
                f"{self.views} views {self.interval} frames apart need "
                f"{(self.views - 1) * self.interval + 1} frames; the context has {self.context}"
            )

    @property
    def spare(self) -> int:
        """How far back the last frame can be pushed."""
        return self.context - 1 - (self.views - 1) * self.interval

    @property
    def slots(self) -> Int[np.ndarray, " S"]:
        """(S,) the frames that can be drawn, in rising order: the firsts of the slots."""
        return np.arange(1 - self.step, self.context, self.step).clip(min=0).astype(np.int64)

    @classmethod
    def for_clip(cls, frames: int, *, views: int = 4) -> ViewRule:
        """The published rule where a clip has its 76 frames, and the same in small where not.

        Slots stay those of the published rule, and so the first frames of most video models'
        latents, where a clip has three of them; there are more of them than views, so that draws
        differ.

        Args:
            frames: of the clip.
            views: frames a draw; fewer are drawn where the clip has no more slots than this.
        """
        if frames >= cls.context:
            return cls(views=views)
        step = cls.step if frames > 2 * cls.step else 1
        slots = (frames + step - 2) // step + 1
        most = max(1, min(views, slots - 1))
        # As many frames apart as in the published rule, in proportion.
        interval = max(step, cls.interval * frames // cls.context)
        return cls(views=most, interval=interval, context=frames, step=step)


def training_frames(
    identity: str, *, seed: int, draw: int, rule: ViewRule | None = None
) -> Int[np.ndarray, " V"]:
    """The frames of one draw of one scene.

    Args:
        identity: of the scene.
        seed: of the training run.
        draw: how often this scene was drawn before; the epoch, where each comes once.
        rule: how to draw.

    Returns:
        (V,) frames in rising order, the first one 0.
    """
    return _frames(f"train\0{identity}\0{seed}\0{draw}", rule or ViewRule())


def evaluation_frames(identity: str, *, rule: ViewRule | None = None) -> Int[np.ndarray, " V"]:
    """The frames that a scene is always evaluated at.

    Returns:
        (V,) frames in rising order, the first one 0.
    """
    return _frames(f"evaluate\0{identity}", rule or ViewRule())


def _frames(key: str, rule: ViewRule) -> Int[np.ndarray, " V"]:
    # A hash instead of a generator: numpy may change what its generators give from a seed.
    cuts = rule.views - 1
    words = np.frombuffer(hashlib.shake_256(key.encode()).digest(8 * cuts), dtype="<u8")
    pushed = sorted(int(word) * (rule.spare + 1) >> 64 for word in words)
    frames = [0, *(rule.interval * (k + 1) + push for k, push in enumerate(pushed))]
    return np.array(
        [0 if each == 0 else (each - 1) // rule.step * rule.step + 1 for each in frames],
        dtype=np.int64,
    )
