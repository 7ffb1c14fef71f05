"""Rendering clips in bulk: scenes are sampled by worker processes while the GPU traces rays."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from explorer.data.world import Rendered, Scenes, WorldSpec, render, sample_scenes
from explorer.data.world.render import EAGER, Kernels

AHEAD = 4  # batches of scenes sampled before they are wanted, for each worker process
Item = TypeVar("Item")


def for_seconds(
    items: Iterable[Item],
    seconds: float | None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Item]:
    """Items until so many seconds after the first was used; all of them where `seconds` is None.

    The first waits for kernels to be compiled, which on a new machine takes longer than a pool
    should; what it takes is not counted.
    """
    start: float | None = None
    for item in items:
        yield item
        if start is None:
            start = clock()
        elif seconds is not None and clock() - start > seconds:
            return


class Renderer:
    """Renders batches of seeds on one device; compiled on a GPU."""

    def __init__(self, device: str, *, supersample: int = 2, workers: int = 4) -> None:
        self._device = device
        self._supersample = supersample
        self._ahead = AHEAD * workers
        self._executor = ProcessPoolExecutor(workers) if workers else None
        self._kernels = Kernels.compiled() if device.startswith("cuda") else EAGER

    def batches(
        self,
        seeds: Iterable[int],
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
        for group, scenes in self._sampled(_groups(seeds, batch), spec):
            yield render(
                scenes,
                height=height,
                width=width,
                supersample=self._supersample,
                device=self._device,
                frames=frames(group) if callable(frames) else frames,
                kernels=self._kernels,
                images=images,
            )

    def _sampled(
        self, groups: Iterator[list[int]], spec: WorldSpec | None
    ) -> Iterator[tuple[list[int], Scenes]]:
        """Scenes of each group, sampled a little ahead: seeds may go on for ever."""
        if self._executor is None:
            for group in groups:
                yield group, sample_scenes(group, spec)
            return
        waiting: deque[tuple[list[int], Future[Scenes]]] = deque()
        for group in groups:
            waiting.append((group, self._executor.submit(sample_scenes, group, spec)))
            if len(waiting) > self._ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()

    def close(self) -> None:
        """End the worker processes."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)


def _groups(seeds: Iterable[int], batch: int) -> Iterator[list[int]]:
    group: list[int] = []
    for seed in seeds:
        group.append(seed)
        if len(group) == batch:
            yield group
            group = []
    if group:
        yield group


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
    """(B, T, H, W, 3) uint8 images of all seeds, or of as many as `for_seconds` allows."""
    batches = renderer.batches(seeds, batch=batch, height=height, width=width, frames=frames)
    return torch.cat([rendered.images for rendered in for_seconds(batches, seconds)])
