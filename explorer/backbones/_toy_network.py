"""What shipped networks that see the frames themselves have in common: no VAE, no noise."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from explorer._typing import Float, Int, UInt8
from explorer.backbones import _toy, _wan_files
from explorer.backbones._latents import compute_provenance, to_float16
from explorer.backbones._options import Target
from explorer.backbones._wan_files import DTYPES
from explorer.backbones.base import Backbone, BackboneCard, never, resize_frames, stop_check

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.features import Features


def load_network(
    folder: Path, make: Callable[[dict[str, Any]], Any], *, device: str, dtype: str
) -> Any:
    """The network of a folder with config.json and safetensors, in evaluation mode.

    Args:
        folder: of the model.
        make: configuration to network.
        device: where it goes.
        dtype: of its weights there.

    Raises:
        BackboneError: files are missing or broken, or do not fit the configuration; the dtype is
            unknown.
    """
    _wan_files.check_target(device, dtype)
    model = _wan_files.load_shipped(folder, make)
    return _wan_files.place(model.eval().requires_grad_(False), device, DTYPES[dtype])


def load_backbone(
    kind: Callable[..., Backbone], network: Callable[..., Any], card: BackboneCard, target: Target
) -> Backbone:
    """A shipped network of pixels: the weights of its folder, in the wanted dtype here.

    Args:
        kind: a class like `PixelBackbone`.
        network: reads a folder's network.
        card: of the model.
        target: device and dtype.
    """
    return kind(
        card,
        network(_toy.folder(card.id), device=target.device, dtype=target.dtype),
        weights_hash=_toy.pixel_hashes(card.id).weights,
        trained=_toy.is_trained(card.id),
    )


class PixelBackbone(Backbone):
    """A network on the frames of a clip; what it does with them is `read`."""

    def __init__(
        self,
        card: BackboneCard,
        model: Any,
        *,
        weights_hash: str,
        trained: bool,
    ) -> None:
        super().__init__(card)
        weight: torch.Tensor = next(model.parameters())
        self.transformer = model
        self.dtype, self.device = weight.dtype, weight.device
        self._weights_hash = weights_hash
        self._provenance = compute_provenance(weight.device, weight.dtype, trained=trained)

    @property
    def weights_hash(self) -> str:
        return self._weights_hash

    def timestep(self, sigma: float) -> tuple[float, int]:
        level = _toy.SCHEDULE.at_sigma(0.0)
        return level.timestep, level.official_index

    def seen(self, slot_frames: Int[np.ndarray, " S"]) -> slice | Int[np.ndarray, " S"]:
        """Which frames of a clip the network is given; all of them, unless it says otherwise."""
        return slice(None)

    @abstractmethod
    def read(
        self,
        pictures: UInt8[torch.Tensor, "1 T H W 3"],
        slot_frames: Int[np.ndarray, " S"],
        *,
        layers: Sequence[int],
        tap: str,
        should_stop: Callable[[], bool],
    ) -> dict[int, torch.Tensor]:
        """(1, S, h, w, C) of each wanted layer; the lock is held."""

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
        stop_check(should_stop)
        slot_frames = self.slots(len(clip.frames))[1]
        frames = resize_frames(clip.frames[self.seen(slot_frames)], self.card.input_size)
        with self.hold(should_stop):
            self.calls += 1
            pictures = torch.from_numpy(np.ascontiguousarray(frames))[None].to(self.device)
            found = self.read(
                pictures, slot_frames, layers=layers, tap=tap, should_stop=should_stop
            )
            values = {layer: to_float16(tokens[0]) for layer, tokens in found.items()}
        return self.features(
            values, clip, sigma=0.0, seed=seed, provenance=self._provenance, tap=tap
        )
