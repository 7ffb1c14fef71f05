"""GPU memory that VGGT takes as a reference, measured with random weights or counted from shapes.

    python benchmarks/reference_memory.py          # VGGT-1B on 81 and on 150 frames of 294 x 518
    python benchmarks/reference_memory.py --tiny   # the same code with a tiny network, anywhere

The pass is the reference's own: attention in bfloat16, heads in float32 on a few frames at a time.
On a GPU both figures are printed, elsewhere the count alone. It runs the pass on tensors that have
shapes and no values and adds up the storages that are alive at once; workspaces of libraries and
gaps of the allocator are not in it. Nothing but torch, numpy, einops and safetensors is needed.
"""

from __future__ import annotations

import argparse
import gc
import json
import weakref
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from explorer.backbones._weights import size_text
from explorer.nets.vggt import VGGT, VGGTConfig
from explorer.references import _vggt_run

SIZE = (294, 518)
LIMITS = {81: 24e9, 150: 48e9}
"""Bytes of the GPU that this many frames should fit on."""
TINY_SIZE = (28, 56)
TINY_LIMITS = {3: 1e9}
TINY = VGGTConfig(
    dim=32,
    heads=4,
    pairs=4,
    native_grid=4,
    embedder_depth=2,
    embedder_heads=4,
    dpt_layers=(0, 1, 2, 3),
    dpt_dim=16,
    dpt_stage_channels=(8, 12, 16, 20),
)


class Alive(TorchDispatchMode):
    """Adds up the bytes of storages from when an operation returns them to when they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.ops.aten.native_layer_norm.default and args[0].dtype.itemsize == 2:
            # on a GPU autocast has these in float32
            args = (args[0].float(), *args[1:])
        if function is torch.ops.aten.rms_norm.default:
            result = torch.empty_like(args[0])  # one kernel on a GPU
        else:
            result = function(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor):
                self._add(each.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = storage.nbytes()
        self.bytes += storage.nbytes()
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.bytes -= self._known.pop(key)


@dataclass(frozen=True)
class Row:
    """One number of frames.

    Attributes:
        frames: in one pass.
        weights: bytes of the network in float32.
        counted: most bytes of tensors at once, weights included.
        measured: the same as the GPU's allocator saw it; None without a GPU.
        reserved: what the allocator held for that; None without a GPU.
        limit: bytes of the GPU that it should fit on.
    """

    frames: int
    weights: int
    counted: int
    measured: int | None
    reserved: int | None
    limit: float

    @property
    def fits(self) -> bool:
        return (self.reserved or self.counted) < self.limit


def counted(config: VGGTConfig, frames: int, size: tuple[int, int]) -> tuple[int, int]:
    """(bytes of the weights, most bytes at once) of a pass, from shapes."""
    with FakeTensorMode(), torch.inference_mode(), Alive() as alive:
        model = VGGT(config)
        gc.collect()
        weights = alive.peak = alive.bytes
        _pass(model, torch.empty(1, frames, 3, *size), size)
    return weights, alive.peak


def measured(config: VGGTConfig, frames: int, size: tuple[int, int]) -> tuple[int, int]:
    """(most bytes of tensors at once, most bytes held) on the GPU, with random weights."""
    torch.manual_seed(0)
    with torch.inference_mode(), torch.device("cuda"):
        model = VGGT(config)
        images = torch.rand(1, frames, 3, *size)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        _pass(model, images, size)
    found = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    del model, images
    gc.collect()
    torch.cuda.empty_cache()
    return found


def _pass(model: VGGT, images: torch.Tensor, size: tuple[int, int]) -> None:
    _vggt_run.infer(model.eval().requires_grad_(False), images, size, half=True)


def row(config: VGGTConfig, frames: int, size: tuple[int, int], limit: float) -> Row:
    weights, peak = counted(config, frames, size)
    on_gpu = torch.cuda.is_available()
    seen, held = measured(config, frames, size) if on_gpu else (None, None)
    return Row(frames, weights, peak, seen, held, limit)


def table(rows: Sequence[Row], size: tuple[int, int], gpu: str | None) -> str:
    lines = [
        "| frames | weights | counted peak | measured peak | held by the allocator | should fit on "
        "| does |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in rows:
        cells = (each.weights, each.counted, each.measured, each.reserved)
        numbers = " | ".join("-" if cell is None else size_text(cell) for cell in cells)
        fits = "yes" if each.fits else "no"
        lines.append(f"| {each.frames} | {numbers} | {size_text(int(each.limit))} | {fits} |")
    how = f"measured on {gpu}" if gpu else "counted from shapes: there is no GPU here"
    return "\n".join([*lines, "", f"{size[0]} x {size[1]}, torch {torch.__version__}, {how}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a tiny network on a few frames")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    arguments = parser.parse_args()
    config, size, limits = (
        (TINY, TINY_SIZE, TINY_LIMITS) if arguments.tiny else (VGGTConfig(), SIZE, LIMITS)
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    rows = [row(config, frames, size, limit) for frames, limit in limits.items()]
    print(table(rows, size, gpu))
    if arguments.json:
        found = [{**asdict(each), "fits": each.fits} for each in rows]
        arguments.json.write_text(json.dumps({"gpu": gpu, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
