"""Depth Anything 3 on frames, through the package depth-anything-3."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from explorer._resize import resize
from explorer._typing import Float, UInt8
from explorer.backbones._hooks import checked_before
from explorer.backbones._torch_files import load_strictly, read_state
from explorer.errors import BackboneError, ReferenceError3D
from explorer.references import _room
from explorer.references._turn import turn
from explorer.references.depth_anything3 import INSTALL


@dataclass(frozen=True)
class Estimate:
    """What the network says about N frames, float32, lengths in its own unit.

    Attributes:
        depth: (N, H, W) z-depth.
        confidence: (N, H, W) >= 1.
        cam_from_world: (N, 3, 4).
        intrinsics: (N, 3, 3) in pixels of (H, W).
    """

    depth: Float[np.ndarray, "N H W"]
    confidence: Float[np.ndarray, "N H W"]
    cam_from_world: Float[np.ndarray, "N 3 4"]
    intrinsics: Float[np.ndarray, "N 3 3"]


def run(
    frames: UInt8[np.ndarray, "N h w 3"],
    weights: Path,
    *,
    preset: str,
    digest: str,
    size: tuple[int, int],
    device: str,
    should_stop: Callable[[], bool],
) -> Estimate:
    """One pass over all frames together, as the package makes it: mixed precision, own view first.

    Args:
        frames: RGB, of any size; stretched to `size`, which the package then leaves as it is.
        weights: file of safetensors.
        preset: the package's name of the network.
        digest: of the file.
        size: (height, width), multiples of 14.
        device: "cpu", "cuda", ...
        should_stop: asked before each block.

    Raises:
        ReferenceError3D: the weights do not fit, there is too little memory, or the package
            answers otherwise than it is known to.
        Cancelled: `should_stop` became true.
    """
    what = f"{len(frames)} frames by {preset}"
    key = (preset, digest, device)
    with turn(should_stop), _room.or_too_little(device, what), ExitStack() as stack:
        model = _room.network(key, functools.partial(_load, weights, preset, device))
        for block in _blocks(model):
            stack.enter_context(checked_before(block, should_stop))
        pictures = [resize(frame, size) for frame in frames]
        found = model.inference(image=pictures, process_res=max(size))
    return _checked(found, len(frames), size)


def _load(weights: Path, preset: str, device: str) -> Any:
    # It logs to stdout, where `--json` prints one object and nothing else.
    os.environ.setdefault("DA3_LOG_LEVEL", "ERROR")
    try:
        from depth_anything_3.api import DepthAnything3
    except ImportError as error:
        raise ReferenceError3D(
            f"the package depth-anything-3 cannot be imported ({error}): {INSTALL}"
        ) from None
    model: Any = DepthAnything3(model_name=preset)
    try:
        load_strictly(model, _placed(model, read_state(weights)), source=weights)
    except BackboneError as error:
        raise ReferenceError3D(str(error)) from None
    return model.eval().requires_grad_(False).to(device)


def _placed(model: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that the network has a place for, under all names of those that have several.

    Published files hold a shared tensor once. What has no place is left out, as in the package.
    """
    places = model.state_dict(keep_vars=True)
    shared = {id(places[name]): value for name, value in state.items() if name in places}
    found = {name: state.get(name, shared.get(id(place))) for name, place in places.items()}
    return {name: value for name, value in found.items() if value is not None}


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Modules that stand in a list: the blocks of the network, whatever their names."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList):
            yield from module


def _checked(found: Any, count: int, size: tuple[int, int]) -> Estimate:
    fields: dict[str, Any] = {}
    for ours, theirs, shape in (
        ("depth", "depth", (count, *size)),
        ("confidence", "conf", (count, *size)),
        ("cam_from_world", "extrinsics", (count, 3, 4)),
        ("intrinsics", "intrinsics", (count, 3, 3)),
    ):
        value = getattr(found, theirs, None)
        value = None if value is None else np.asarray(value, dtype=np.float32)
        if ours == "cam_from_world" and value is not None:
            value = value[:, :3]  # releases differ in whether the last row is there
        if value is None or value.shape != shape:
            what = "nothing" if value is None else f"an array of shape {value.shape}"
            raise ReferenceError3D(
                f"this release of depth-anything-3 gives {what} as {theirs} where {shape} is "
                f"expected: {INSTALL}"
            )
        fields[ours] = value
    return Estimate(**fields)
