"""What shipped networks that see the frames themselves have in common: no VAE, no noise."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from explorer._typing import Float, Int, UInt8
from explorer.backbones import _toy
from explorer.backbones._files import model_files, read_config
from explorer.backbones._latents import compute_provenance, to_float16
from explorer.backbones._wan_files import DTYPES
from explorer.backbones.base import Backbone, BackboneCard, never, resize_frames, stop_check
from explorer.errors import BackboneError

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
    from safetensors.torch import load_file

    if dtype not in DTYPES:
        raise BackboneError(f"dtype {dtype!r} is unknown: choose {', '.join(DTYPES)}")
    config, *weights = model_files(folder)
    try:
        model = make(read_config(config))
        state = {name: value for path in weights for name, value in load_file(path).items()}
        model.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise BackboneError(
            f"the weights in {folder} are broken or do not fit config.json: {reason}"
        ) from None
    return model.eval().requires_grad_(False).to(device, DTYPES[dtype])


class PixelBackbone(Backbone):
    """A network on the frames of a clip; what it does with them is `read`."""

    def __init__(
        self,
        card: BackboneCard,
        model: Any,
        weight: torch.Tensor,
        *,
        weights_hash: str,
        trained: bool,
    ) -> None:
        super().__init__(card)
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
            found = self.read(pictures, slot_frames, layers=layers, should_stop=should_stop)
            values = {layer: to_float16(tokens[0]) for layer, tokens in found.items()}
        return self.features(values, clip, sigma=0.0, seed=seed, provenance=self._provenance)
