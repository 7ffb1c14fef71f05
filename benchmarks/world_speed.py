"""How many clips of the world a device renders in a second, and how long compiling takes before.

    python benchmarks/world_speed.py [--device cuda] [--split train] [--batches 30]

On a GPU all kernels are compiled; scenes are sampled by worker processes while it renders.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from explorer.data.world import WORLD_VERSION
from explorer.data.world.splits import SPLITS, split_seeds
from explorer.toy.config import FRAMES, HEIGHT, WIDTH
from explorer.toy.pool import Renderer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--split", default="train", choices=list(SPLITS))
    parser.add_argument("--batches", type=int, default=30)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=4)
    arguments = parser.parse_args()
    renderer = Renderer(arguments.device, workers=arguments.workers)
    on_gpu = arguments.device.startswith("cuda")

    def seconds(batches: int) -> float:
        seeds = split_seeds(arguments.split, batches * arguments.batch)
        start = time.perf_counter()
        for _ in renderer.batches(seeds, batch=arguments.batch, height=HEIGHT, width=WIDTH):
            pass
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    first = seconds(2)
    spent = seconds(arguments.batches)
    renderer.close()
    rate = arguments.batches * arguments.batch / spent
    print(
        json.dumps(
            {
                "world": WORLD_VERSION,
                "device": torch.cuda.get_device_name() if on_gpu else "cpu",
                "clip": [FRAMES, HEIGHT, WIDTH],
                "first_two_batches_s": round(first, 2),
                "clips_per_second": round(rate, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
