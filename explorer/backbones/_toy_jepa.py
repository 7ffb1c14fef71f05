"""toy-jepa: reading its folder, and the tokens of its blocks as features.

The encoder's boxes are pairs of frames. The first frame is doubled, so that the pairs of 17 frames
are (0, 0), (1, 2), (3, 4), ... and every slot of toy-wan begins one of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from explorer._typing import Float, Int, UInt8
from explorer.backbones import _toy
from explorer.backbones._files import model_files, read_config
from explorer.backbones._hooks import run_blocks
from explorer.backbones._latents import compute_provenance, to_float16
from explorer.backbones._wan_files import DTYPES
from explorer.backbones.base import Backbone, BackboneCard, never, resize_frames, stop_check
from explorer.errors import BackboneError
from explorer.nets.vggt import IMAGENET_MEAN, IMAGENET_STD
from explorer.nets.vjepa import VideoViT, VideoViTConfig

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.features import Features


def load_jepa(folder: Path, *, device: str, dtype: str = "float32") -> VideoViT:
    """The encoder of a folder with config.json and safetensors, in evaluation mode.

    Raises:
        BackboneError: files are missing or broken, or do not fit the configuration; the dtype is
            unknown.
    """
    from safetensors.torch import load_file

    if dtype not in DTYPES:
        raise BackboneError(f"dtype {dtype!r} is unknown: choose {', '.join(DTYPES)}")
    config, *weights = model_files(folder)
    try:
        model = VideoViT(VideoViTConfig(**read_config(config)))
        state = {name: value for path in weights for name, value in load_file(path).items()}
        model.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise BackboneError(
            f"the weights in {folder} are broken or do not fit config.json: {reason}"
        ) from None
    return model.eval().requires_grad_(False).to(device, DTYPES[dtype])


def to_boxes(clips: UInt8[torch.Tensor, "B T H W 3"]) -> Float[torch.Tensor, "B 3 U H W"]:
    """Clips as the encoder wants them: the first frame twice, normalised; U = T + 1, T odd."""
    doubled = torch.cat([clips[:, :1], clips], dim=1).permute(0, 4, 1, 2, 3).float() / 255.0
    # Plain numbers: a tensor made here would break the capture of a CUDA graph.
    channels = zip(doubled.unbind(1), IMAGENET_MEAN, IMAGENET_STD, strict=True)
    return torch.stack([(each - mean) / std for each, mean, std in channels], dim=1)


@torch.inference_mode()
def box_tokens(
    model: VideoViT,
    video: Float[torch.Tensor, "B 3 U H W"],
    slot_frames: Int[np.ndarray, " S"],
    *,
    layers: Sequence[int],
    should_stop: Callable[[], bool] = never,
) -> dict[int, torch.Tensor]:
    """Tokens (B, S, h, w, dim) after the wanted blocks, of the pairs that hold the slots' frames.

    Raises:
        Cancelled: `should_stop` became true; asked before each block.
    """
    grid = model.grid(*video.shape[2:])
    boxes = [(int(frame) + 1) // 2 for frame in slot_frames]

    def of_slots(tokens: torch.Tensor) -> torch.Tensor:
        placed = tokens.unflatten(1, grid)
        return torch.stack([placed[:, box] for box in boxes], dim=1)

    return run_blocks(
        lambda: model(video),
        list(model.blocks),
        layers=layers,
        keep=of_slots,
        should_stop=should_stop,
    )


class JepaBackbone(Backbone):
    """The clip in pairs of frames, seen by the predictive encoder; it knows no noise."""

    def __init__(
        self, card: BackboneCard, model: VideoViT, *, weights_hash: str, trained: bool
    ) -> None:
        super().__init__(card)
        self.transformer = model
        self._weights_hash = weights_hash
        weight = model.patch_embed.proj.weight
        self._dtype, self._device = weight.dtype, weight.device
        self._provenance = compute_provenance(weight.device, weight.dtype, trained=trained)

    @property
    def weights_hash(self) -> str:
        return self._weights_hash

    @property
    def blocks(self) -> Sequence[torch.nn.Module]:
        return list(self.transformer.blocks)

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
        frames = resize_frames(clip.frames, self.card.input_size)
        with self.hold(should_stop):
            self.calls += 1
            pictures = torch.from_numpy(np.ascontiguousarray(frames))[None].to(self._device)
            found = box_tokens(
                self.transformer,
                to_boxes(pictures).to(self._dtype),
                self.slots(len(frames))[1],
                layers=layers,
                should_stop=should_stop,
            )
            values = {layer: to_float16(tokens[0]) for layer, tokens in found.items()}
        return self.features(values, clip, sigma=0.0, seed=seed, provenance=self._provenance)
