"""Encoders that see the frames themselves: no noise, no latents, one or a few passes for a clip."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from explorer._typing import Float, Int, UInt8
from explorer.backbones import _build
from explorer.backbones._delivery import Delivery, Parcel
from explorer.backbones._encoder_published import Family, NoNoise
from explorer.backbones._hooks import run_blocks
from explorer.backbones._latents import compute_provenance
from explorer.backbones._options import Target
from explorer.backbones._published import component
from explorer.backbones.base import (
    Backbone,
    BackboneCard,
    never,
    resize_frames,
    slot_map,
    stop_check,
)
from explorer.errors import BackboneError
from explorer.features import Features

if TYPE_CHECKING:
    from explorer.clip import Clip

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

Rename = Callable[[str, torch.Tensor], Iterable[tuple[str, torch.Tensor]]]


def normalised(
    frames: UInt8[np.ndarray, "T H W 3"], device: str | torch.device = "cpu"
) -> Float[torch.Tensor, "T 3 H W"]:
    """Frames as these encoders want them: in [0, 1], less ImageNet's mean, over its deviation."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2)
    mean = torch.tensor(IMAGENET_MEAN, device=device).view(3, 1, 1)
    deviation = torch.tensor(IMAGENET_DEVIATION, device=device).view(3, 1, 1)
    return ((pixels.float() / 255 - mean) / deviation).contiguous()


class EncoderBackbone(Backbone):
    """A network of blocks over tokens behind the one `extract`.

    `transformer` runs its `stages` in order; a stage returns (B, N, D) tokens, alone or as the
    first of a tuple, of which the first `special` of each B belong to no place of the picture.
    """

    special = 0

    def __init__(
        self, card: BackboneCard, transformer: Any, *, weights_hash: str, device: str
    ) -> None:
        super().__init__(card)
        self.transformer = transformer.eval().requires_grad_(False)
        self.device = torch.device(device)
        self.dtype: torch.dtype = next(transformer.parameters()).dtype
        self._weights_hash = weights_hash
        self._provenance = compute_provenance(self.device, self.dtype, trained=True)

    @property
    def weights_hash(self) -> str:
        return self._weights_hash

    def timestep(self, sigma: float) -> tuple[float, int]:
        level = NoNoise().at_sigma(sigma)
        return level.timestep, level.official_index

    @abstractmethod
    def passes(self, count: int) -> list[Int[np.ndarray, " n"]]:
        """The frames of each pass through the network, for a clip of `count` frames."""

    @abstractmethod
    def run(self, frames: Float[torch.Tensor, "n 3 H W"]) -> object:
        """One pass."""

    @abstractmethod
    def tapped(self, block: Any, tap: str) -> nn.Module:
        """The module of a block whose output is its query or key."""

    def combine(self, parts: list[Float[np.ndarray, "s h w C"]]) -> Float[np.ndarray, "S h w C"]:
        """The slots of a clip out of those of its passes."""
        return np.concatenate(parts)

    def pixels(self, frames: UInt8[np.ndarray, "n H W 3"]) -> Float[torch.Tensor, "n 3 H W"]:
        """Frames as the network wants them, on its device."""
        return normalised(frames, self.device)

    def placed_at(self, layer: int, output: Any) -> Float[torch.Tensor, "s h w C"]:
        """`placed`, for networks whose stages differ in the order of their tokens."""
        return self.placed(output)

    def placed(self, output: Any) -> Float[torch.Tensor, "s h w C"]:
        """What a stage returned, without special tokens and in its place."""
        tokens = output[0] if isinstance(output, tuple) else output
        rows, columns = self.card.token_grid
        grid: torch.Tensor = tokens[:, self.special :].reshape(-1, rows, columns, tokens.shape[-1])
        return grid

    def check(self, clip: Clip, layers: Sequence[int], sigma: float, *, tap: str = "block") -> None:
        super().check(clip, layers, sigma, tap=tap)
        norms = [layer for layer in layers if isinstance(self.blocks[layer], nn.LayerNorm)]
        if tap != "block" and norms:
            raise BackboneError(
                f"layer {norms[0]} of {self.card.id} is its final norm and has no {tap}: "
                f"choose 0 to {self.card.layers - 2}"
            )

    @torch.inference_mode()
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
        stages = list(self.blocks)
        readers = stages if tap == "block" else [self._reader(stage, tap) for stage in stages]
        parts: dict[int, list[Parcel]] = {layer: [] for layer in layers}
        with self.hold(should_stop):
            delivery = Delivery(self.device)
            self.calls += 1
            for chosen in self.passes(len(clip.frames)):
                stop_check(should_stop)
                frames = resize_frames(clip.frames[chosen], self.card.input_size)
                pixels = self.pixels(frames).to(self.dtype)
                found = run_blocks(
                    lambda pixels=pixels: self.run(pixels),  # type: ignore[misc]
                    stages,
                    layers=layers,
                    keep_at=lambda layer, output: delivery.send(self.placed_at(layer, output)),
                    readers=readers,
                    should_stop=should_stop,
                )
                for layer, parcel in found.items():
                    parts[layer].append(parcel)
            values = {
                layer: self.combine(list(delivery.receive(dict(enumerate(parcels))).values()))
                for layer, parcels in sorted(parts.items())
            }
        return self.features(
            values, clip, sigma=0.0, seed=seed, provenance=self._provenance, tap=tap
        )

    def _reader(self, stage: Any, tap: str) -> nn.Module:
        return stage if isinstance(stage, nn.LayerNorm) else self.tapped(stage, tap)


class TubeletBackbone(EncoderBackbone):
    """An encoder of whole clips whose tokens hold two frames each.

    A clip of an odd number of frames begins with its first frame twice, so that this one has a
    slot of its own and every other slot holds two frames.
    """

    def slots(self, frame_count: int) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " S"]]:
        if frame_count % 2:
            return slot_map(frame_count, 2)
        frames = np.arange(frame_count, dtype=np.int64)
        return frames // 2, frames[::2].copy()

    def passes(self, count: int) -> list[Int[np.ndarray, " n"]]:
        return [np.array([0] * (count % 2) + list(range(count)))]

    def places(self, frames: int, side: int) -> Int[torch.Tensor, " N"] | None:
        """Numbers of the tokens' places in a clip of side x side tokens; None where they are all.

        A picture of fewer tokens than the network was made for has those of the upper left.

        Raises:
            BackboneError: the picture has more tokens than the network has places.
        """
        rows, columns = self.card.token_grid
        if (rows, columns) == (side, side):
            return None
        if max(rows, columns) > side:
            raise BackboneError(
                f"{self.card.id} has {side}x{side} places for tokens, not {rows}x{columns}"
            )
        time, row, column = np.meshgrid(
            np.arange(frames // 2), np.arange(rows), np.arange(columns), indexing="ij"
        )
        numbers = (time * side + row) * side + column
        return torch.from_numpy(numbers.ravel()).to(self.device)


def load_network(
    family: Family,
    target: Target,
    *,
    config_class: Any,
    make: Callable[[Any], nn.Module],
    rename: Rename,
    tables: bool = False,
) -> Any:
    """A network of one of transformers' classes, filled from the files of a folder.

    Args:
        family: which kind of folder.
        target: with its folder.
        config_class: of transformers.
        make: configuration to network.
        rename: a name and tensor of the files to those of the network; nothing for a part that is
            left out.
        tables: whether the network has buffers that no file holds.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    settings = {
        name: value
        for name, value in family.settings(target.folder).items()
        if name not in ("out_features", "out_indices", "stage_names")  # of no use here
    }
    where, *files = component(target.folder, "", what=family.what)

    def config(**changes: Any) -> Any:
        try:
            return config_class.from_dict({**settings, **changes})
        except Exception as error:  # validation has its own kinds of errors
            reason = " ".join(str(error).split())[:200]
            raise BackboneError(f"{where} is broken ({reason}): fetch it again") from None

    network = _build.build_empty(
        lambda: make(config()),
        (lambda: make(config(num_hidden_layers=0))) if tables else None,
    )
    return _build.fill(
        network,
        renamed(files, rename),
        device=target.device,
        dtype=target.dtype,
        where=where.parent,
        offload=target.offload,
    )


def renamed(files: Sequence[Path], rename: Rename) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of safetensors or torch files, under the network's names."""
    for name, tensor in _build.shards(files):
        yield from rename(name, tensor)
