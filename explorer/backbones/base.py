"""What every backbone is: a card that says what it needs, and one `extract`."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer._resize import Fit, resize
from explorer._typing import Float, Int, UInt8
from explorer.backbones import _memory
from explorer.backbones._options import Source
from explorer.errors import BackboneError, Cancelled

if TYPE_CHECKING:
    from pathlib import Path

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
        parameters: number of weights that are in memory together.
        note: one sentence: what it stands for, what it controls for.
        memory_bytes: needed to run one full clip, weights included, in the usual precision: float32
            for shipped models; for published ones, where it follows from the fields below, a
            network in bfloat16 behind a VAE in float32.
        source: where published weights are; None for what comes with the package.
        vae_parameters: of `parameters`, those of the video VAE, which has a precision of its own.
        working_bytes: what the network's activations of a full clip take in bfloat16.
        vae_working_bytes: what the VAE's activations of a full clip take in float32; both are
            never there at once.
        vae_pass_bytes: what the VAE's activations take in half precision where more is free, and
            it encodes more at once; 0 where that makes no difference.
        taps: what can be read of a block: its output, its attention's query, its key.
        official: how the released feature extraction differs from this one, and why.
        first_frame: whether the first frame is also given without noise (image to video).
        fit: how a video of another shape is brought to `input_size`, as the model's own
            preprocessing does it, or the paper's for the models it probes: "crop" or "stretch".
        takes_prompt: whether text can be given; an empty one is, unless the user says otherwise.
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
    note: str
    memory_bytes: int = 0
    source: Source | None = None
    vae_parameters: int = 0
    working_bytes: int = 0
    vae_working_bytes: int = 0
    vae_pass_bytes: int = 0
    taps: tuple[str, ...] = ("block",)
    official: str = ""
    first_frame: bool = False
    fit: Fit = "crop"
    takes_prompt: bool = False


@dataclass(frozen=True)
class Hashes:
    """What identifies a backbone's output, for the keys of the store.

    Attributes:
        weights: sha256 over weights and configuration.
        encoder: sha256 over the VAE; None where there are no latents.
    """

    weights: str
    encoder: str | None


def slot_map(
    frame_count: int, frame_step: int
) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " S"]]:
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

    Attributes:
        card: facts about the model.
        lock: held during every pass.
        calls: features computed from the network, one for each `extract`.
        encoder_calls: clips encoded by the VAE. Both counters prove cache hits.
        compiled: whether the blocks are.
    """

    def __init__(self, card: BackboneCard) -> None:
        self.card = card
        self.lock = threading.Lock()
        self.calls = 0
        self.encoder_calls = 0
        self.compiled = False

    @property
    @abstractmethod
    def weights_hash(self) -> str:
        """sha256 over weights and configuration."""

    @property
    def encoder_hash(self) -> str | None:
        """sha256 over the VAE, the key of stored latents; None where there are no latents."""
        return None

    @property
    def blocks(self) -> Sequence[Any]:
        """The network's blocks in running order, one for each layer; empty without a network."""
        return ()

    def compile(self) -> None:
        """Compile the blocks, for all passes to come: see `Target.compile`.

        Raises:
            BackboneError: there are none.
        """
        from explorer.backbones._compiled import compile_blocks

        if not self.blocks:
            raise BackboneError(f"{self.card.id} has no blocks to compile: leave --compile out")
        compile_blocks(self.blocks)
        self.compiled = True

    def slots(self, frame_count: int) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " S"]]:
        """(frame_to_slot, slot_frames) of a clip: which slot holds each frame, and which frame
        stands for each slot.
        """
        return slot_map(frame_count, self.card.frame_step)

    @abstractmethod
    def timestep(self, sigma: float) -> tuple[float, int]:
        """(the model's own timestep, the index of the official code) for a noise level."""

    def encode(
        self, clip: Clip, *, should_stop: Callable[[], bool] = never
    ) -> Float[np.ndarray, "z S hl wl"]:
        """Latents without noise, for `extract` at any sigma and seed.

        Returns:
            (z, S, hl, wl) float32: posterior mean, normalised by the VAE's statistics.

        Raises:
            BackboneError: this backbone has no VAE (`encoder_hash` is None), or the frame count
                does not fit.
            Cancelled: `should_stop` became true; checked before each VAE chunk.
        """
        raise BackboneError(f"{self.card.id} has no latents: call extract without them")

    @abstractmethod
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
        """Features of the wanted layers from one pass that stops after the last of them.

        Args:
            clip: frames of any size. All of each is seen, stretched where it has another shape than
                the card's, so that tokens cover what the clip shows; what is to be cropped is
                cropped when the clip is made: `load_clip(..., size=card.input_size, fit=card.fit)`.
            layers: 0-based blocks whose outputs are kept.
            sigma: fraction of noise in [0, 1].
            seed: seed of the noise.
            latents: what `encode` gave for this clip; None encodes it here. Ignored by backbones
                without latents.
            tap: what to read of each layer, one of the card's `taps`: "block", or "query" or "key"
                of its self-attention, normalised where the model does that, before any rotation.
            should_stop: asked before each block and VAE chunk, and while waiting for the lock.

        Raises:
            BackboneError: the layers, sigma, latents or frame count do not fit the model.
            Cancelled: `should_stop` became true.
        """

    @contextmanager
    def hold(self, should_stop: Callable[[], bool]) -> Iterator[None]:
        """The lock, given up waiting for once the caller wants to stop.

        Raises:
            Cancelled: `should_stop` became true before the lock was free.
            BackboneError: memory ran out inside.
        """
        while not self.lock.acquire(timeout=0.05):
            stop_check(should_stop)
        try:
            stop_check(should_stop)
            yield
        except (MemoryError, RuntimeError) as error:
            if not _memory.is_shortage(error):
                raise
            error.with_traceback(None)  # its frames hold what filled the memory
            raise _memory.shortage(self.card) from None
        finally:
            self.lock.release()

    def features(
        self,
        values: dict[int, Float[np.ndarray, "S h w C"]],
        clip: Clip,
        *,
        sigma: float,
        seed: int,
        provenance: dict[str, Any],
        tap: str = "block",
    ) -> dict[int, Features]:
        """One `Features` for each layer's values."""
        from explorer.features import Features

        frame_to_slot, slot_frames = self.slots(len(clip.frames))
        timestep, index = self.timestep(sigma)
        return {
            layer: Features(
                values=array,
                frame_to_slot=frame_to_slot,
                slot_frames=slot_frames,
                backbone=self.card.id,
                backbone_hash=self.weights_hash,
                layer=layer,
                sigma=sigma,
                timestep=timestep,
                official_index=index,
                seed=seed,
                provenance={**provenance, **({"compiled": True} if self.compiled else {})},
                tap=tap,
            )
            for layer, array in values.items()
        }

    def check(self, clip: Clip, layers: Sequence[int], sigma: float, *, tap: str = "block") -> None:
        """Refuse what the model cannot take, before any work.

        Raises:
            BackboneError: with what was asked, what is possible, and the nearest choice.
        """
        check_clip(self.card, clip, layers, sigma)
        if tap not in self.card.taps:
            raise BackboneError(
                f"{self.card.id} has no tap {tap!r}; it has: {', '.join(self.card.taps)}"
            )


def check_clip(card: BackboneCard, clip: Clip, layers: Sequence[int], sigma: float) -> None:
    """Refuse what a card says that its model cannot take.

    Raises:
        BackboneError: with what was asked, what is possible, and the nearest choice.
    """
    count = len(clip.frames)
    if not len(layers):
        raise BackboneError(f"name at least one layer of {card.id}, 0 to {card.layers - 1}")
    if count == 0:
        raise BackboneError(f"{card.id} needs at least one frame; this clip has none")
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


def resize_frames(
    frames: UInt8[np.ndarray, "T H W 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "T h w 3"]:
    """Frames stretched to (height, width) `size`; the same array where they have it already."""
    if frames.shape[1:3] == size:
        return frames
    return np.stack([resize(frame, size) for frame in frames])


def stop_check(should_stop: Callable[[], bool]) -> None:
    """Raise `Cancelled` once the caller wants to stop."""
    if should_stop():
        raise Cancelled("stopped")


def hash_files(paths: Sequence[Path]) -> str:
    """sha256 over the names and bytes of files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: (path.parent.name, path.name)):
        digest.update(f"{path.parent.name}/{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def hash_arrays(parts: Sequence[tuple[str, np.ndarray]], configuration: str) -> str:
    """sha256 over a configuration and named arrays, in the given order."""
    digest = hashlib.sha256(configuration.encode())
    for name, array in parts:
        digest.update(name.encode())
        digest.update(str(array.dtype).encode() + str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
