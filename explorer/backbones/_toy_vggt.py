"""toy-vggt: reading its folder, and the tokens of its pairs as features.

The functions take batches and know nothing of cards or clips, so that training can use them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from explorer._typing import Float, Int, UInt8
from explorer.backbones._hooks import run_blocks
from explorer.backbones._toy_network import PixelBackbone, load_network
from explorer.backbones._views import by_view
from explorer.backbones.base import never
from explorer.nets.vggt import VGGT, VGGTConfig


def load_vggt(folder: Path, *, device: str, dtype: str = "float32") -> VGGT:
    """The network of a folder with config.json and safetensors, in evaluation mode.

    Raises:
        BackboneError: files are missing or broken, or do not fit the configuration; the dtype is
            unknown.
    """
    found: VGGT = load_network(folder, _make, device=device, dtype=dtype)
    return found


def _make(fields: dict[str, Any]) -> VGGT:
    plain: dict[str, Any] = {
        key: tuple(each) if isinstance(each, list) else each for key, each in fields.items()
    }
    return VGGT(VGGTConfig(**plain))


def to_images(frames: UInt8[torch.Tensor, "B S H W 3"]) -> Float[torch.Tensor, "B S 3 H W"]:
    """(B, S, 3, H, W) in [0, 1]."""
    return frames.permute(0, 1, 4, 2, 3).float() / 255.0


@torch.inference_mode()
def tokens_of(
    model: VGGT,
    images: Float[torch.Tensor, "B S 3 H W"],
    *,
    layers: Sequence[int],
    tap: str = "block",
    should_stop: Callable[[], bool] = never,
) -> dict[int, torch.Tensor]:
    """Patch tokens (B, S, h, w, 2 dim) after the wanted pairs: within frames, then across them.

    With the tap "query" or "key": (B, S, h, w, dim), of the pairs' attention across frames.

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
    first, readers = len(before), None
    halves: tuple[int, ...] = (0, 1)
    if tap != "block":
        name = {"query": "q_norm", "key": "k_norm"}[tap]
        readers = [block.get_submodule(f"attn.{name}") for block in (*before, *pairs)]
        halves = (1,)
    found = run_blocks(
        lambda: trunk(images),
        [*before, *pairs],
        layers=[first + 2 * layer + half for layer in sorted(set(layers)) for half in halves],
        keep=torch.clone if tap == "block" else lambda heads: by_view(heads, batch * count),
        readers=readers,
        should_stop=should_stop,
    )
    grid = (height // patch, width // patch)

    def placed(tokens: torch.Tensor) -> torch.Tensor:
        frames = tokens.reshape(batch, count, -1, tokens.shape[-1])
        return frames[:, :, model.special :].unflatten(2, grid)

    return {
        layer: torch.cat([placed(found[first + 2 * layer + half]) for half in halves], dim=-1)
        for layer in sorted(set(layers))
    }


class VggtBackbone(PixelBackbone):
    """The slots' frames of a clip, seen together by the 3D expert; it knows no noise."""

    @property
    def blocks(self) -> Sequence[torch.nn.Module]:
        return list(self.transformer.aggregator.global_blocks)

    def seen(self, slot_frames: Int[np.ndarray, " S"]) -> slice | Int[np.ndarray, " S"]:
        return slot_frames

    def read(
        self,
        pictures: UInt8[torch.Tensor, "1 T H W 3"],
        slot_frames: Int[np.ndarray, " S"],
        *,
        layers: Sequence[int],
        tap: str,
        should_stop: Callable[[], bool],
    ) -> dict[int, torch.Tensor]:
        images = to_images(pictures).to(self.dtype)
        return tokens_of(self.transformer, images, layers=layers, tap=tap, should_stop=should_stop)
