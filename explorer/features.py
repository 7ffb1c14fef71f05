"""`Features`: what one backbone said about one clip at one layer and one noise level."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from explorer._typing import Float, Int
from explorer.errors import BackboneError


@dataclass(frozen=True)
class Features:
    """Token features of one cell (backbone, layer, sigma, seed).

    Attributes:
        values: (S, h, w, C) float16, S time slots of a token grid h x w. The grid covers the whole
            frame: token (i, j) is centred at ((j + 0.5) / w, (i + 0.5) / h) of width and height.
        frame_to_slot: (T,) slot that holds each frame of the clip.
        slot_frames: (S,) the frame that stands for each slot (0, then 4k-3 for 4x latent time).
        backbone: registry id.
        backbone_hash: sha256 over weights and configuration; probes are bound to it.
        layer: 0-based block whose output this is.
        sigma: fraction of noise in [0, 1].
        timestep: the number that the model was given.
        official_index: position in the scheduler's descending list (`--t` in the official code).
        seed: seed of the noise.
        provenance: device, dtype, versions: whatever may change the last bits.
        tap: what of the block this is: "block" (its output), "query" or "key".
    """

    values: Float[np.ndarray, "S h w C"]
    frame_to_slot: Int[np.ndarray, " T"]
    slot_frames: Int[np.ndarray, " S"]
    backbone: str
    backbone_hash: str
    layer: int
    sigma: float
    timestep: float
    official_index: int
    seed: int
    provenance: dict[str, Any] = field(default_factory=dict)
    tap: str = "block"

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the token grid."""
        return self.values.shape[1], self.values.shape[2]

    def token_at(self, x: float, y: float, size: tuple[int, int]) -> tuple[int, int]:
        """Token (row, column) under image point (x, y) of an image of (height, width) `size`."""
        height, width = size
        rows, columns = self.grid
        row = int(np.clip(np.floor(y / height * rows), 0, rows - 1))
        column = int(np.clip(np.floor(x / width * columns), 0, columns - 1))
        return row, column


_RANGE = re.compile(r"(\d+)-(\d+)(?::([1-9]\d*))?")


def resolve_layers(layers: list[int] | str, count: int) -> list[int]:
    """0-based layers out of a list with negative indices, "all", or words like "1,3,-1,8-20:4".

    Raises:
        BackboneError: a layer is outside the model's `count` blocks or not a number.

    >>> resolve_layers("0-6:3,-1", 10)
    [0, 3, 6, 9]
    """
    if isinstance(layers, str):
        layers = list(range(count)) if layers == "all" else _numbers(layers)
    resolved = sorted({layer + count if layer < 0 else layer for layer in layers})
    outside = [layer for layer in resolved if not 0 <= layer < count]
    if outside or not resolved:
        raise BackboneError(
            f"layer {outside or layers} does not exist: this model has layers 0 to {count - 1}"
        )
    return resolved


def _numbers(text: str) -> list[int]:
    """Numbers and ranges "first-last" or "first-last:step", the last one included."""
    found: list[int] = []
    for word in text.split(","):
        span = _RANGE.fullmatch(word.strip())
        try:
            if span is None:
                found.append(int(word))
                continue
            first, last, step = (int(part or 1) for part in span.groups())
            if last < first:
                raise ValueError
        except ValueError:
            raise BackboneError(
                f"layers {text!r}: give numbers like 1,3,5, ranges like 0-29 or 0-29:3, or all"
            ) from None
        found += range(first, last + 1, step)
    return found
