"""The latents that a transformer trains on: clips at two sizes, some replaced while it trains."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from explorer.data.world.splits import split_seeds
from explorer.toy import parallel
from explorer.toy.config import HEIGHT, SMALL_HEIGHT, SMALL_WIDTH, WIDTH, Variant
from explorer.toy.latents import latent_batches, latent_pool, one_frame
from explorer.toy.pool import Renderer

LARGE_CLIPS = 0.25  # of --clips, rendered at 144x256
LARGE, SMALL = f"{HEIGHT}x{WIDTH}", f"{SMALL_HEIGHT}x{SMALL_WIDTH}"
SIZES = {LARGE: (HEIGHT, WIDTH), SMALL: (SMALL_HEIGHT, SMALL_WIDTH)}
FRESH_SPAN = 1_000_000  # positions kept for the fresh clips of a process and a size


@dataclass
class LatentPool:
    """Latents of one size on one process, whose oldest clips make room for fresh ones.

    Attributes:
        latents: (N, C, S, h, w) bfloat16.
        first: position in the training range of its first clip.
        fresh_first: position of its first fresh clip.
        fresh: endless latents of fresh clips, a batch at a time.
        renewed: how many fresh clips came.
    """

    latents: Tensor
    first: int
    fresh_first: int
    fresh: Iterator[Tensor] | None = None
    renewed: int = 0
    _owed: float = field(default=0.0, repr=False)

    def __len__(self) -> int:
        return len(self.latents)

    def owes(self, clips: float) -> bool:
        """Owe so many more fresh clips; whether it is time to render some."""
        self._owed += 0.0 if self.fresh is None else clips
        return self._owed >= 1.0

    def renew(self) -> None:
        """Replace the oldest clips by batches of fresh ones until no more are owed."""
        while self.fresh is not None and self._owed >= 1.0:
            batch = next(self.fresh)[: len(self.latents)]
            at = torch.arange(self.renewed, self.renewed + len(batch)) % len(self.latents)
            self.latents[at.to(self.latents.device)] = batch
            self.renewed += len(batch)
            self._owed -= len(batch)


class Pools:
    """What a transformer trains on, of one process among its peers.

    Args:
        arguments: of `train_transformer`.
        renderer: kept open for as long as there are fresh clips to render.
        vae: frozen.
        variant: of the transformer.
        worker: this process.

    Attributes:
        of: the pools by the name of their size, without those that no step reads.
        seconds: spent on fresh clips.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        renderer: Renderer,
        vae: AutoencoderKLWan,
        variant: Variant,
        worker: parallel.Worker,
    ) -> None:
        self._worker = worker
        self.seconds = 0.0
        limits = self._limits(arguments)
        wanted = {LARGE: arguments.large_share > 0, SMALL: arguments.large_share < 1}
        # At full size a clip takes longer, and few are as bad as none.
        share = max(0.4, arguments.large_share) if wanted[SMALL] else 1.0
        seconds = {LARGE: share, SMALL: 1.0 - share if wanted[LARGE] else 1.0}
        self.of: dict[str, LatentPool] = {}
        for number, (name, (height, width)) in enumerate(SIZES.items()):
            if not wanted[name]:
                continue
            region = worker.rank * len(SIZES) + number
            first = arguments.first_seed + region * arguments.pool
            regions = worker.count * len(SIZES)
            fresh_first = arguments.first_seed + regions * arguments.pool + region * FRESH_SPAN
            # Single frames take a seventeenth of the memory, and larger batches render faster.
            batch = arguments.render_batch * (8 if variant.frames_alone else 1)
            frames = one_frame if variant.frames_alone else None
            make = {"batch": batch, "height": height, "width": width, "frames": frames}
            budget = None if arguments.clips else seconds[name] * arguments.pool_seconds
            seeds = split_seeds("train", limits[name], start=first)
            found = latent_pool(renderer, vae, seeds, seconds=budget, **make)
            pool = LatentPool(found, first, fresh_first)
            if arguments.fresh:
                endless = partial(latent_batches, renderer, vae)
                pool.fresh = endless(split_seeds("train", FRESH_SPAN, start=fresh_first), **make)
            self.of[name] = pool
        self._counts = self._everyone()

    def _limits(self, arguments: argparse.Namespace) -> dict[str, int]:
        """Most clips of each size.

        Raises:
            ValueError: the exact number of clips does not fit into --pool.
        """
        if not arguments.clips:
            return dict.fromkeys(SIZES, arguments.pool)
        small, large = split_clips(arguments.clips, self._worker)
        if max(small, large) > arguments.pool:
            raise ValueError(f"--pool {arguments.pool} is less than this process's {small}+{large}")
        return {LARGE: large, SMALL: small}

    def pick(self, *, large: bool) -> LatentPool:
        """The pool of a size."""
        return self.of[LARGE if large else SMALL]

    def renew(self, *, large: bool, clips: float) -> None:
        """Owe a size so many fresh clips, and render them once there is a batch of them."""
        pool = self.pick(large=large)
        if not pool.owes(clips):
            return
        if pool.latents.is_cuda:  # or the time of the steps before would be counted
            torch.cuda.synchronize()
        start = time.monotonic()
        pool.renew()
        self.seconds += time.monotonic() - start

    def spans(self) -> dict[str, list[list[int]]]:
        """[first, number] of the positions of every size's clips, those of all processes.

        Processes take the same steps, so all of them have renewed as many clips as this one.
        """
        return {
            name: [
                span
                for first, count, fresh_first in self._counts[name]
                for span in ([first, count], [fresh_first, pool.renewed])
                if span[1]
            ]
            for name, pool in self.of.items()
        }

    def _everyone(self) -> dict[str, list[list[int]]]:
        """(first, number, first fresh) of the clips of every process, by size."""
        found = {}
        for name, pool in self.of.items():
            mine = torch.tensor(
                [[pool.first, len(pool), pool.fresh_first]], device=self._worker.device
            )
            found[name] = parallel.gather_first(mine, self._worker).tolist()
        return found


def split_clips(clips: int, worker: parallel.Worker) -> tuple[int, int]:
    """How many of `clips` different clips this process renders small and large: all together
    exactly `clips`, the same ones for fewer as the first of more.

    Raises:
        ValueError: a process would have none of a size.
    """
    large = max(round(clips * LARGE_CLIPS), worker.count)
    small = clips - large
    if small < worker.count:
        raise ValueError(f"{clips} clips are too few for {worker.count} processes")

    def mine(count: int) -> int:
        return count // worker.count + (worker.rank < count % worker.count)

    return mine(small), mine(large)
