"""toy-vggt: reading its folder, and the tokens of its pairs as features.

The functions take batches and know nothing of cards or clips, so that training can use them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from explorer._typing import Float, UInt8
from explorer.backbones import _toy
from explorer.backbones._files import model_files, read_config
from explorer.backbones._hooks import run_blocks
from explorer.backbones._latents import compute_provenance, to_float16
from explorer.backbones._wan_files import DTYPES
from explorer.backbones.base import Backbone, BackboneCard, never, resize_frames, stop_check
from explorer.errors import BackboneError
from explorer.nets.vggt import VGGT, VGGTConfig

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.features import Features


def load_vggt(folder: Path, *, device: str, dtype: str = "float32") -> VGGT:
    """The network of a folder with config.json and safetensors, in evaluation mode.

    Raises:
        BackboneError: files are missing or broken, or do not fit the configuration; the dtype is
            unknown.
    """
    from safetensors.torch import load_file

    if dtype not in DTYPES:
        raise BackboneError(f"dtype {dtype!r} is unknown: choose {', '.join(DTYPES)}")
    config, *weights = model_files(folder)
    try:
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in read_config(config).items()
        }
        model = VGGT(VGGTConfig(**fields))
        state = {name: value for path in weights for name, value in load_file(path).items()}
        model.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise BackboneError(
            f"the weights in {folder} are broken or do not fit config.json: {reason}"
        ) from None
    return model.eval().requires_grad_(False).to(device, DTYPES[dtype])


def to_images(frames: UInt8[torch.Tensor, "B S H W 3"]) -> Float[torch.Tensor, "B S 3 H W"]:
    """(B, S, 3, H, W) in [0, 1]."""
    return frames.permute(0, 1, 4, 2, 3).float() / 255.0


@torch.inference_mode()
def tokens_of(
    model: VGGT,
    images: Float[torch.Tensor, "B S 3 H W"],
    *,
    layers: Sequence[int],
    should_stop: Callable[[], bool] = never,
) -> dict[int, torch.Tensor]:
    """Patch tokens (B, S, h, w, 2 dim) after the wanted pairs: within frames, then across them.

    Raises:
        Cancelled: `should_stop` became true; asked before each block.
    """
    trunk, patch = model.aggregator, model.config.patch
    batch, count, _, height, width = images.shape
    before = list(trunk.patch_embed.blocks)
    pairs = [
        block
        for pair in zip(trunk.frame_blocks, trunk.global_blocks, strict=True)
        for block in pair
    ]
    first = len(before)
    found = run_blocks(
        lambda: trunk(images),
        [*before, *pairs],
        layers=[first + 2 * layer + half for layer in sorted(set(layers)) for half in (0, 1)],
        keep=torch.clone,
        should_stop=should_stop,
    )
    grid = (height // patch, width // patch)

    def placed(tokens: torch.Tensor) -> torch.Tensor:
        frames = tokens.reshape(batch, count, -1, tokens.shape[-1])
        return frames[:, :, model.special :].unflatten(2, grid)

    return {
        layer: torch.cat([placed(found[first + 2 * layer + half]) for half in (0, 1)], dim=-1)
        for layer in sorted(set(layers))
    }


class VggtBackbone(Backbone):
    """The slots' frames of a clip, seen together by the 3D expert; it knows no noise."""

    def __init__(
        self, card: BackboneCard, model: VGGT, *, weights_hash: str, trained: bool
    ) -> None:
        super().__init__(card)
        self.transformer = model
        self._weights_hash = weights_hash
        weight = model.aggregator.patch_embed.patch_embed.proj.weight
        self._dtype, self._device = weight.dtype, weight.device
        self._provenance = compute_provenance(weight.device, weight.dtype, trained=trained)

    @property
    def weights_hash(self) -> str:
        return self._weights_hash

    @property
    def blocks(self) -> Sequence[torch.nn.Module]:
        return list(self.transformer.aggregator.global_blocks)

    def timestep(self, sigma: float) -> tuple[float, int]:
        level = _toy.SCHEDULE.at_sigma(0.0)
        return level.timestep, level.official_index

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
        frames = resize_frames(clip.frames[self.slots(len(clip.frames))[1]], self.card.input_size)
        with self.hold(should_stop):
            self.calls += 1
            pictures = torch.from_numpy(np.ascontiguousarray(frames))[None].to(self._device)
            found = tokens_of(
                self.transformer,
                to_images(pictures).to(self._dtype),
                layers=layers,
                should_stop=should_stop,
            )
            values = {layer: to_float16(tokens[0]) for layer, tokens in found.items()}
        return self.features(values, clip, sigma=0.0, seed=seed, provenance=self._provenance)
