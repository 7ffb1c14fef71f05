"""A VGGT on frames: bfloat16 attention on a GPU, float32 geometry, heads a few frames at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from explorer._resize import resize
from explorer._typing import Float, UInt8
from explorer.backbones._hooks import checked_before
from explorer.backbones._torch_files import load_strictly, read_state
from explorer.backbones.base import never, stop_check
from explorer.errors import BackboneError, ReferenceError3D
from explorer.nets.geometry import DenseMaps
from explorer.nets.pose import decode_pose
from explorer.nets.vggt import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    VGGT,
    VGGTConfig,
    without_tracks,
)
from explorer.references import _room
from explorer.references._turn import turn
from explorer.references._vggt_files import Weights

CHUNK = 4
"""Frames whose maps are computed at a time."""
KEYS = ("model", "state_dict")


@dataclass(frozen=True)
class Estimate:
    """What a VGGT says about S frames, float32, lengths in its own unit.

    Attributes:
        depth, depth_confidence, points_confidence: (S, H, W).
        points: (S, H, W, 3), of the point head.
        cam_from_world: (S, 3, 4).
        intrinsics: (S, 3, 3) in pixels of (H, W).
        dtype: of the attention blocks.
    """

    depth: Float[np.ndarray, "S H W"]
    depth_confidence: Float[np.ndarray, "S H W"]
    points: Float[np.ndarray, "S H W 3"]
    points_confidence: Float[np.ndarray, "S H W"]
    cam_from_world: Float[np.ndarray, "S 3 4"]
    intrinsics: Float[np.ndarray, "S 3 3"]
    dtype: str

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the maps."""
        return self.depth.shape[1], self.depth.shape[2]


@torch.inference_mode()
def run(
    frames: UInt8[np.ndarray, "S H W 3"],
    weights: Weights,
    *,
    size: tuple[int, int],
    device: str,
    should_stop: Callable[[], bool],
) -> Estimate:
    """One pass over all frames together.

    Args:
        frames: RGB, of any size; stretched to `size`.
        weights: of the network.
        size: (height, width) of its input, multiples of its patch.
        device: "cpu", "cuda", ...
        should_stop: asked before each block, and before each few frames of the heads.

    Raises:
        ReferenceError3D: weights that are broken or of another network, or too little memory.
        Cancelled: `should_stop` became true.
    """
    config = _config(weights)
    on_gpu = device.startswith("cuda")
    map_size = weights.map_size or size
    what = f"{len(frames)} frames by this VGGT"
    key = ("vggt", weights.digest, config, device)
    with turn(should_stop), _room.or_too_little(device, what):
        to_load = 0 if _room.is_loaded(key) else 4 * _parameters(config)
        _room.make_room(to_load + _activations(config, len(frames), size), device, what)
        model: VGGT = _room.network(key, functools.partial(_load, weights.path, config, device))
        pictures = np.stack([resize(frame, size) for frame in frames])
        images = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2)[None].float() / 255.0
        maps, encoding = infer(model, images, map_size, half=on_gpu, should_stop=should_stop)
        cam_from_world, intrinsics = decode_pose(encoding, map_size)
    return Estimate(
        depth=maps.depth.numpy(),
        depth_confidence=maps.depth_confidence.numpy(),
        points=maps.points.numpy(),
        points_confidence=maps.points_confidence.numpy(),
        cam_from_world=cam_from_world.numpy(),
        intrinsics=intrinsics.numpy(),
        dtype="bfloat16" if on_gpu else "float32",
    )


def infer(
    model: VGGT,
    images: Float[torch.Tensor, "1 S 3 H W"],
    map_size: tuple[int, int],
    *,
    half: bool,
    should_stop: Callable[[], bool] = never,
) -> tuple[DenseMaps, Float[torch.Tensor, "S 9"]]:
    """(maps of all frames, their pose encodings), in host memory and float32.

    Args:
        model: on the device of the images.
        images: RGB in [0, 1]; H and W multiples of the patch.
        map_size: (height, width) of the maps.
        half: attention in bfloat16. The heads are float32 either way.
        should_stop: asked before each block, and before each `CHUNK` frames of the heads.

    Raises:
        Cancelled: `should_stop` became true.
    """
    height, width = images.shape[-2:]
    grid = (height // model.config.patch, width // model.config.patch)
    trunk = model.aggregator
    with ExitStack() as stack:
        for block in [*trunk.patch_embed.blocks, *trunk.frame_blocks, *trunk.global_blocks]:
            stack.enter_context(checked_before(block, should_stop))
        stack.enter_context(torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=half))
        taps = model.trunk(images)
    encoding = model.cameras(taps)[-1][0].float().cpu()
    parts = []
    for start in range(0, images.shape[1], CHUNK):
        stop_check(should_stop)
        maps = model.maps(taps, grid, map_size, frames=slice(start, start + CHUNK))
        parts.append(DenseMaps(*(field.float().cpu() for field in maps)))
    return DenseMaps(*(torch.cat(fields) for fields in zip(*parts, strict=True))), encoding


def _config(weights: Weights) -> VGGTConfig:
    try:
        config = VGGTConfig(**weights.config)
        _parameters(config)  # what the network itself refuses
        return config
    except (TypeError, ValueError) as error:
        raise ReferenceError3D(
            f"{weights.folder / 'config.json'} is not of a VGGT ({error}): fetch it again"
        ) from None


def _load(path: Path, config: VGGTConfig, device: str) -> VGGT:
    try:
        with torch.device("meta"):  # no random numbers for a billion parameters
            model = VGGT(config)
        state = without_tracks(read_state(path, keys=KEYS))
        load_strictly(model, state, source=path)
    except ValueError as error:
        raise ReferenceError3D(f"{path.parent / 'config.json'}: {error}") from None
    except BackboneError as error:
        raise ReferenceError3D(str(error)) from None
    # no file holds these
    model.aggregator.mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    model.aggregator.std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    model.camera_head.start = torch.tensor(config.camera_start)
    return model.float().eval().requires_grad_(False).to(device)


def _activations(config: VGGTConfig, frames: int, size: tuple[int, int]) -> int:
    """Bytes of one pass beside the weights, with room for workspaces and gaps."""
    patches = (size[0] // config.patch) * (size[1] // config.patch)
    tokens = frames * (1 + config.registers + patches)
    taps = 4 * tokens * 2 * config.dim * 4
    heads = CHUNK * size[0] * size[1] * 4 * 4 * config.dpt_dim
    pictures_and_maps = frames * size[0] * size[1] * (3 + 6) * 4
    return 3 * taps + heads + pictures_and_maps


@functools.lru_cache(maxsize=4)
def _parameters(config: VGGTConfig) -> int:
    with torch.device("meta"):
        return sum(each.numel() for each in VGGT(config).parameters())
