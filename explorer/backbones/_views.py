"""Networks that see all frames of a clip at once and have tokens for each: no VAE, no noise."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from explorer._typing import Float
from explorer.backbones import _build
from explorer.backbones._encoder_published import NoNoise
from explorer.backbones._latents import compute_provenance
from explorer.backbones._options import Target
from explorer.backbones._torch_files import read_state
from explorer.backbones._wan_files import DTYPES
from explorer.backbones.base import Backbone, BackboneCard, never, resize_frames

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.features import Features


class ViewModel(Backbone):
    """A network without noise whose slots are the frames; what it does with them is `read`."""

    def __init__(
        self, card: BackboneCard, transformer: nn.Module, target: Target, *, weights_hash: str
    ) -> None:
        super().__init__(card)
        self.transformer = transformer
        self.device = torch.device(target.device)
        self.dtype = DTYPES[target.dtype]
        self._weights_hash = weights_hash
        self._provenance = compute_provenance(self.device, self.dtype, trained=True)

    @property
    def weights_hash(self) -> str:
        return self._weights_hash

    def timestep(self, sigma: float) -> tuple[float, int]:
        level = NoNoise().at_sigma(sigma)
        return level.timestep, level.official_index

    @abstractmethod
    def read(
        self,
        images: Float[torch.Tensor, "1 S 3 H W"],
        *,
        layers: Sequence[int],
        tap: str,
        should_stop: Callable[[], bool],
    ) -> dict[int, np.ndarray]:
        """(S, h, w, C) float16 of each wanted layer, of images in [0, 1]; the lock is held."""

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
        with self.hold(should_stop), torch.inference_mode():
            self.calls += 1
            images = to_images(resize_frames(clip.frames, self.card.input_size), self.device)
            values = self.read(images[None], layers=layers, tap=tap, should_stop=should_stop)
        return self.features(
            values, clip, sigma=0.0, seed=seed, provenance=self._provenance, tap=tap
        )


def to_images(
    frames: np.ndarray, device: str | torch.device = "cpu"
) -> Float[torch.Tensor, "S 3 H W"]:
    """Frames of bytes as RGB in [0, 1], channels first."""
    images = torch.from_numpy(np.ascontiguousarray(frames)).to(device)
    return images.permute(0, 3, 1, 2).float() / 255.0


def by_view(heads: Float[torch.Tensor, "K A N E"], views: int) -> Float[torch.Tensor, "S P C"]:
    """Queries or keys of attention within or over all views as tokens (views, P, heads * E)."""
    tokens = heads.transpose(1, 2).flatten(2)
    return tokens.reshape(views, -1, tokens.shape[-1])


def load(
    make: Callable[[], nn.Module],
    shallow: Callable[[], nn.Module] | None,
    path: Path,
    target: Target,
    *,
    prefix: str = "",
    unused: tuple[str, ...],
    offload_parts: Sequence[str] = ("",),
) -> Any:
    """A network filled from one file, strictly.

    Args:
        make: builds the network.
        shallow: builds it without blocks, for its buffers.
        path: safetensors or torch file.
        target: device, dtype, offload.
        prefix: of the names of the network's tensors in the file.
        unused: prefixes of tensors that the network leaves out on purpose.
        offload_parts: modules that hold the lists of blocks.

    Raises:
        BackboneError: the file is broken or refused, names are missing or unexpected, or a shape
            differs.
    """
    return _build.fill(
        _build.build_empty(make, shallow),
        _used(_tensors(path), prefix, unused),
        device=target.device,
        dtype=target.dtype,
        where=path,
        offload=target.offload,
        offload_parts=offload_parts,
    )


def _tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    if path.suffix == ".safetensors":
        yield from _build.shards([path])
    else:
        yield from read_state(path, keys=("model", "state_dict")).items()


def _used(
    tensors: Iterator[tuple[str, torch.Tensor]], prefix: str, unused: tuple[str, ...]
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in tensors:
        if name.startswith(unused):
            continue
        # what lacks the prefix could otherwise pass for a tensor of the network
        yield (name.removeprefix(prefix) if name.startswith(prefix) else f"?{name}"), tensor
