"""V-JEPA 1 on interleaved clips of 16 frames."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from explorer._typing import Float, Int
from explorer.backbones import _build, _tiny, _torch_files
from explorer.backbones._encoder import EncoderBackbone
from explorer.backbones._encoder_published import Sizes, resized
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard
from explorer.backbones.vjepa1 import CLIP
from explorer.errors import BackboneError
from explorer.nets.vjepa import CHECKPOINT_KEY, CHECKPOINT_PREFIXES, VideoViT, VideoViTConfig

REST = CLIP - 1


def clip_frames(count: int) -> list[Int[np.ndarray, " n"]]:
    """Frames of each clip: [0] + [i + n k], i from 1 to n, k from 0 to 14, for 1 + 15 n frames.

    A single frame is a clip of two, itself twice.
    """
    clips = (count - 1) // REST
    if not clips:
        return [np.array([0, 0])]
    return [np.r_[0, first + clips * np.arange(REST)] for first in range(1, clips + 1)]


class Vjepa1Backbone(EncoderBackbone):
    """The video encoder behind the one `extract`.

    Of n clips, slot j n + i is token j of clip i, which orders slots by time. Frame f > 0 is in
    clip (f - 1) mod n, token ((f - 1) // n + 1) // 2. Token 0 of every clip also holds frame 0,
    which counts for slot 0.
    """

    @property
    def blocks(self) -> Sequence[Any]:
        return list(self.transformer.blocks)

    def slots(self, frame_count: int) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " S"]]:
        clips = max((frame_count - 1) // REST, 1)
        later = np.arange(frame_count - 1, dtype=np.int64)
        clip, place = later % clips, later // clips + 1
        frame_to_slot = np.r_[0, place // 2 * clips + clip].astype(np.int64)
        slot_frames = np.unique(frame_to_slot, return_index=True)[1]
        return frame_to_slot, slot_frames.astype(np.int64)

    def passes(self, count: int) -> list[Int[np.ndarray, " n"]]:
        return clip_frames(count)

    def run(self, frames: Float[torch.Tensor, "n 3 H W"]) -> object:
        return self.transformer(frames.transpose(0, 1)[None])

    def combine(self, parts: list[Float[np.ndarray, "s h w C"]]) -> Float[np.ndarray, "S h w C"]:
        return np.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:])

    def tapped(self, block: Any, tap: str) -> nn.Module:
        attention = block.attn
        module: nn.Module = {"query": attention.q_norm, "key": attention.k_norm}[tap]
        return module

    def placed(self, output: Any) -> Float[torch.Tensor, "s h w C"]:
        # queries and keys come as (1, heads, N, D / heads)
        return super().placed(output.transpose(1, 2).flatten(2) if output.dim() == 4 else output)


def adapt(card: BackboneCard, path: Path) -> BackboneCard:
    """The card of a file: sizes from its tensors' shapes.

    Raises:
        BackboneError: it is damaged or of another model.
    """
    config, parameters = _facts(path, path.stat().st_mtime_ns)
    sizes = Sizes(config.depth, config.dim, config.patch, parameters)
    return resized(card, sizes, layers=config.depth)


def load(card: BackboneCard, target: Target, path: Path, *, weights_hash: str) -> Vjepa1Backbone:
    """The encoder out of a released file.

    Raises:
        BackboneError: the file is damaged, holds more than tensors, or is of another model.
    """
    config, _ = _facts(path, path.stat().st_mtime_ns)
    network = _build.fill(
        _build.build_empty(lambda: VideoViT(config)),
        iter(_state(path).items()),
        device=target.device,
        dtype=target.dtype,
        where=path,
        offload=target.offload,
        model="V-JEPA 1's encoder",
    )
    return Vjepa1Backbone(card, network, weights_hash=weights_hash, device=target.device)


def _state(path: Path) -> dict[str, torch.Tensor]:
    return _torch_files.read_state(path, keys=(CHECKPOINT_KEY,), prefixes=CHECKPOINT_PREFIXES)


@functools.lru_cache(maxsize=16)
def _facts(path: Path, changed: int) -> tuple[VideoViTConfig, int]:
    """Configuration and number of weights; the released models differ in nothing else."""
    state = _state(path)
    try:
        dim, _, tubelet, patch, _ = state["patch_embed.proj.weight"].shape
        hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
        places = state["pos_embed"].shape[1]
    except (KeyError, IndexError, ValueError) as error:
        raise BackboneError(
            f"{path} is not a V-JEPA 1 encoder ({type(error).__name__}: {error}): "
            "get the file that this backbone's card names"
        ) from None
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    side = round((places * tubelet / CLIP) ** 0.5)
    config = VideoViTConfig(
        size=side * patch,
        frames=CLIP,
        patch=patch,
        tubelet=tubelet,
        dim=dim,
        depth=depth,
        mlp_ratio=hidden / dim,
    )
    return config, sum(tensor.numel() for tensor in state.values())


def write_tiny(path: Path) -> None:
    """Random weights of a tiny encoder, beside the other parts that the released file has."""
    network = VideoViT(VideoViTConfig(size=128, patch=32, dim=48, depth=3, mlp_ratio=2.0))
    _tiny.randomize(network, torch.Generator().manual_seed(0))
    prefix = "".join(CHECKPOINT_PREFIXES)
    state = {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({CHECKPOINT_KEY: state, "opt": {"state": {}}, "epoch": 300}, path)
