"""Rendering clips in bulk: scenes are sampled by worker processes while the GPU traces rays."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import Tensor

from explorer.data.world import Rendered, Scenes, WorldSpec, render, sample_scenes
from explorer.data.world.render import EAGER, Kernels


class Renderer:
    """Renders batches of seeds on one device; compiled on a GPU."""

    def __init__(self, device: str, *, supersample: int = 2, workers: int = 4) -> None:
        self._device = device
        self._supersample = supersample
        self._executor = ProcessPoolExecutor(workers) if workers else None
        self._kernels = Kernels.compiled() if device.startswith("cuda") else EAGER

    def batches(
        self,
        seeds: list[int],
        *,
        batch: int,
        height: int,
        width: int,
        frames: list[int] | Callable[[list[int]], list[int]] | None = None,
        spec: WorldSpec | None = None,
        images: bool = True,
    ) -> Iterator[Rendered]:
        """Rendered batches of at most `batch` scenes.

        `frames` may depend on the seeds of a batch; all clips of it show the same frames.
        """
        groups = [seeds[i : i + batch] for i in range(0, len(seeds), batch)]
        scenes: Iterator[Scenes]
        if self._executor is None:
            scenes = (sample_scenes(group, spec) for group in groups)
        else:
            scenes = self._executor.map(sample_scenes, groups, [spec] * len(groups))
        for scene, group in zip(scenes, groups, strict=True):
            yield render(
                scene,
                height=height,
                width=width,
                supersample=self._supersample,
                device=self._device,
                frames=frames(group) if callable(frames) else frames,
                kernels=self._kernels,
                images=images,
            )

    def close(self) -> None:
        """End the worker processes."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)


def image_pool(
    renderer: Renderer,
    seeds: list[int],
    *,
    batch: int,
    height: int,
    width: int,
    frames: list[int] | None = None,
    seconds: float | None = None,
) -> Tensor:
    """(B, T, H, W, 3) uint8 images of all seeds, or of as many as fit into `seconds`."""
    start, parts = time.monotonic(), []
    for rendered in renderer.batches(seeds, batch=batch, height=height, width=width, frames=frames):
        parts.append(rendered.images)
        if seconds is not None and time.monotonic() - start > seconds:
            break
    return torch.cat(parts)
