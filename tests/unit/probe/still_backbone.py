"""A backbone of mean colours, and probes trained on what it says of prepared scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from prepared_samples import FRAMES
from small_models import small_card

from explorer.backbones.base import Backbone, slot_map
from explorer.data.readers.prepared import Prepared
from explorer.probe.examples import Cell, Examples
from explorer.probe.train import Options, train

GRID, CHANNELS = (4, 6), 5

CARD = small_card(
    "still", layers=2, width=CHANNELS, input_size=(16, 24), max_frames=FRAMES, token_grid=GRID
)


class Still(Backbone):
    """Mean colours of the slots' frames, and where a token is."""

    @property
    def weights_hash(self) -> str:
        return "still-1"

    def timestep(self, sigma: float) -> tuple[float, int]:
        return 1000 * sigma, 0

    def extract(self, clip: Any, *, layers: Sequence[int], sigma: float, **_: Any) -> Any:
        self.calls += 1
        self.clip = clip
        frames = (
            clip.frames[slot_map(len(clip), self.card.frame_step)[1]].astype(np.float32) / 127.5 - 1
        )
        rows, columns = GRID
        height, width = clip.size
        blocks = frames.reshape(len(frames), rows, height // rows, columns, width // columns, 3)
        y, x = np.mgrid[:rows, :columns]
        place = np.broadcast_to(np.stack([y, x], -1) / 6.0, (len(frames), *GRID, 2))
        values = np.concatenate([blocks.mean((2, 4)), place], axis=-1).astype(np.float16)
        return self.features(
            dict.fromkeys(layers, values), clip, sigma=sigma, seed=0, provenance={}
        )


def examples(store: Prepared, side: str, folder: Path, backbone: str = "still") -> Examples:
    cell = Cell(backbone, 1, 0.3)
    return Examples(store.side(side), cell, map_size=(8, 12), folder=folder)


def run(store: Prepared, tmp: Path, name: str, steps: int = 14, **options: Any) -> Any:
    sides = [examples(store, side, tmp / "features") for side in ("train", "test")]
    losses: list[dict[str, Any]] = []
    data = {"split": store.split.reference, "validation_side": options.pop("side", None)}
    chosen = Options(steps=steps, batch=2, **{"rate": 5e-3, "save_every": 4, **options})
    card = train(
        *sides, tmp / name, chosen, data=data, on_step=losses.append,
    )  # fmt: skip
    return card, losses, sides
