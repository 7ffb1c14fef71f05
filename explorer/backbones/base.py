"""What every backbone is: a card that says what it needs, and one `extract`."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer._typing import Int
from explorer.errors import BackboneError, Cancelled

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.features import Features


@dataclass(frozen=True)
class BackboneCard:
    """Facts about a backbone that a page can show before anything is loaded.

    Attributes:
        id: registry name.
        title: one line for people.
        kind: "video diffusion", "image diffusion", "control", "3D expert", ...
        licence: of the weights.
        layers: number of blocks whose output can be read.
        width: channels of a token.
        input_size: (height, width) that frames are resized to.
        max_frames: most frames in one pass.
        frame_step: latent time; frame counts must be 1 + a multiple of it (1: any count).
        token_grid: (h, w) of the features.
        default_cell: (layer, sigma) shown first.
        uses_sigma: False where noise has no meaning (sigma is then ignored and shown as 0).
        parameters: number of weights.
        memory_bytes: needed to run one clip, weights included.
        note: one sentence: what it stands for, what it controls for.
    """

    id: str
    title: str
    kind: str
    licence: str
    layers: int
    width: int
    input_size: tuple[int, int]
    max_frames: int
    frame_step: int
    token_grid: tuple[int, int]
    default_cell: tuple[int, float]
    uses_sigma: bool
    parameters: int
    memory_bytes: int
    note: str


def slot_map(frame_count: int, frame_step: int) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " S"]]:
    """(frame_to_slot, slot_frames) of a causal video VAE with `frame_step` times latent time.

    Slot 0 holds frame 0 alone; slot k holds frames 4k-3 to 4k and is represented by the first of
    them. With `frame_step` 1 every frame is its own slot.
    """
    frames = np.arange(frame_count)
    frame_to_slot = (frames + frame_step - 1) // frame_step
    slots = np.arange(int(frame_to_slot[-1]) + 1)
    slot_frames = np.where(slots == 0, 0, (slots - 1) * frame_step + 1)
    return frame_to_slot.astype(np.int64), slot_frames.astype(np.int64)


def never() -> bool:
    """The `should_stop` of a caller who never stops."""
    return False


class Backbone(ABC):
    """A frozen model that turns a clip into features.

    One lock guards each loaded model: diffusers' VAE keeps a cache on the module, so two passes at
    once would mix their frames without an error.
    """

    def __init__(self, card: BackboneCard) -> None:
        self.card = card
        self.lock = threading.Lock()
        self.calls = 0  # passes through the network; tests prove cache hits with it

    @property
    @abstractmethod
    def weights_hash(self) -> str:
        """sha256 over weights and configuration."""

    @abstractmethod
    def timestep(self, sigma: float) -> tuple[float, int]:
        """(the model's own timestep, the index of the official code) for a noise level."""

    @abstractmethod
    def extract(
        self,
        clip: Clip,
        *,
        layers: Sequence[int],
        sigma: float,
        seed: int = 0,
        should_stop: Callable[[], bool] = never,
    ) -> dict[int, Features]:
        """Features of the wanted layers from one pass that stops after the last of them.

        Raises:
            BackboneError: the layers, sigma or frame count do not fit the model.
            Cancelled: `should_stop` became true; checked before each block and VAE chunk.
        """

    def check(self, clip: Clip, layers: Sequence[int], sigma: float) -> None:
        """Refuse what the model cannot take, before any work.

        Raises:
            BackboneError: with what was asked, what is possible, and the nearest choice.
        """
        card = self.card
        count = len(clip.frames)
        if not 0.0 <= sigma <= 1.0:
            raise BackboneError(f"sigma {sigma} is outside [0, 1]: it is the fraction of noise")
        for layer in layers:
            if not 0 <= layer < card.layers:
                raise BackboneError(
                    f"{card.id} has layers 0 to {card.layers - 1}; layer {layer} does not exist"
                )
        if count > card.max_frames:
            raise BackboneError(
                f"{card.id} takes at most {card.max_frames} frames; this clip has {count}: "
                "choose a shorter window or a larger stride"
            )
        if (count - 1) % card.frame_step != 0:
            below = (count - 1) // card.frame_step * card.frame_step + 1
            raise BackboneError(
                f"{card.id} takes 1 + a multiple of {card.frame_step} frames; this clip has "
                f"{count}: choose {below}"
            )


def stop_check(should_stop: Callable[[], bool]) -> None:
    """Raise `Cancelled` once the caller wants to stop."""
    if should_stop():
        raise Cancelled("stopped")


def hash_arrays(parts: Sequence[tuple[str, np.ndarray]], configuration: str) -> str:
    """sha256 over a configuration and named arrays, in the given order."""
    digest = hashlib.sha256(configuration.encode())
    for name, array in parts:
        digest.update(name.encode())
        digest.update(str(array.dtype).encode() + str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
