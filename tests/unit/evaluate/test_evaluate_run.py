"""A view holds the frames that a backbone's own slots stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from explorer.backbones import registry
from explorer.backbones._cogvideox_frames import Recipe
from explorer.backbones.base import Backbone, never
from explorer.clip import Clip
from explorer.evaluate.run import View
from explorer.features import Features


class Shown(Backbone):
    """Slots as a recipe says; nothing else."""

    recipe: Recipe | None = None

    @property
    def weights_hash(self) -> str:
        return "none"

    def timestep(self, sigma: float) -> tuple[float, int]:
        return 0.0, 0

    def slots(self, frame_count: int) -> tuple[np.ndarray, np.ndarray]:
        return super().slots(frame_count) if not self.recipe else self.recipe.slots(frame_count)

    def extract(
        self,
        clip: Clip,
        *,
        layers: Sequence[int],
        sigma: float,
        seed: int = 0,
        latents: Any = None,
        tap: str = "block",
        should_stop: Callable[[], bool] = never,
    ) -> dict[int, Features]:
        raise NotImplementedError


def test_a_view_has_the_frames_of_the_backbones_own_slots() -> None:
    plain = Shown(dataclasses.replace(registry.card("cogvideox-2b"), max_frames=17))
    official = Shown(dataclasses.replace(registry.card("cogvideox-2b-official"), max_frames=17))
    official.recipe = Recipe(interleaved=True)
    assert View.of(plain).slots == (0, 1, 5, 9, 13)
    assert View.of(official).slots == (0, 1, 2, 9, 10)
    assert View.of(plain) != View.of(official)
    np.testing.assert_array_equal(View.of(official).slot_frames, [0, 1, 2, 9, 10])
