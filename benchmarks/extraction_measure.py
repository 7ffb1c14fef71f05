"""Warm runs of one thing after another: seconds, peak memory on the device, bytes that arrived."""

from __future__ import annotations

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from extraction_models import make_transformer, make_vae

from explorer.backbones import registry
from explorer.backbones.base import BackboneCard
from explorer.clip import Clip, clip_from_frames

SLOW = 3.0
"""Seconds of a run after which two are enough."""


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        what: was done.
        seconds: of each run.
        peak_bytes: most memory of tensors on the device, weights included; 0 without a GPU.
        reserved_bytes: what the allocator held for that, gaps included; 0 without a GPU.
        feature_bytes: that arrived in host memory.
        wanted: seconds that the median should not exceed; None for rows to compare with.
        limit_gib: that the peak should not exceed; None likewise.
    """

    what: str
    seconds: list[float]
    peak_bytes: int
    reserved_bytes: int
    feature_bytes: int
    wanted: float | None = None
    limit_gib: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Setting:
    """What is measured with what."""

    device: torch.device
    repeats: int
    tiny: bool
    compiled: bool
    attention: bool = False

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def card(self, name: str) -> BackboneCard:
        card = registry.card(name)
        if not self.tiny:
            return card
        return dataclasses.replace(
            card, layers=4, width=24, input_size=(64, 96), token_grid=(4, 6), default_cell=(2, 0.5)
        )

    def clip(self, card: BackboneCard) -> Clip:
        count = 9 if self.tiny else card.max_frames
        frames = np.random.default_rng(0).integers(0, 256, (count, *card.input_size, 3), np.uint8)
        return clip_from_frames(frames, name="noise")

    def vae(self, dtype: str, layers: str = "theirs") -> Any:
        return make_vae(tiny=self.tiny, device=self.device, dtype=dtype, layers=layers)

    def transformer(self, name: str, dtype: str) -> Any:
        return make_transformer(name, tiny=self.tiny, device=self.device, dtype=dtype)

    def measure(
        self,
        what: str,
        run: Callable[[], object],
        *,
        wanted: float | None = None,
        limit_gib: float | None = None,
    ) -> Row:
        """Warm runs after one that is not counted; `run` returns features, or their bytes."""
        seconds, delivered = [], 0
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        for turn in range(self.repeats + 1):
            self.wait()
            start = time.perf_counter()
            result = run()
            self.wait()
            if turn:
                seconds.append(time.perf_counter() - start)
            enough = len(seconds) == 2 and min(seconds) > SLOW
            delivered = feature_bytes(result)
            del result
            if enough:
                break
        peak, held = 0, 0
        if self.on_gpu:
            peak = torch.cuda.max_memory_allocated(self.device)
            held = torch.cuda.max_memory_reserved(self.device)
        goals = (None, None) if self.tiny else (wanted, limit_gib)
        row = Row(what, seconds, peak, held, delivered, *goals)
        print(line(row), flush=True)
        return row

    def tried(self, what: str, run: Callable[[], object]) -> list[Row]:
        """The measurement, or none and a line that says why."""
        try:
            return [self.measure(what, run)]
        except RuntimeError as error:  # this GPU or this torch has no such kernel, or no room
            print(f"| {what} | {str(error).splitlines()[0]} | | | | |", flush=True)
            return []

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


def feature_bytes(result: object) -> int:
    if isinstance(result, int):
        return result
    if isinstance(result, dict):
        return sum(feature_bytes(value) for value in result.values())
    if isinstance(result, np.ndarray):
        return result.nbytes
    values = getattr(result, "values", None)
    return values.nbytes if isinstance(values, np.ndarray) else 0


def line(row: Row) -> str:
    goal = "" if row.wanted is None else f"{row.wanted:.2f}"
    most = "" if row.limit_gib is None else f" (at most {row.limit_gib:g})"
    return (
        f"| {row.what} | {row.median:.3f} | {goal} | {row.peak_bytes / 2**30:.1f}{most} | "
        f"{row.reserved_bytes / 2**30:.1f} | {row.feature_bytes / 1e6:.1f} |"
    )
