"""How far features of one clip on a GPU are from those on the CPU, in float32 and bfloat16.

    python benchmarks/device_agreement.py [--backbone toy-wan]

The figure is the largest absolute difference over the standard deviation of the features.
"""

from __future__ import annotations

import argparse
import json
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from explorer.backbones import registry
from explorer.data.world import render, sample_scenes
from explorer.data.world.splits import split_seeds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="toy-wan")
    parser.add_argument("--sigma", type=float, default=0.3)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device")
    card = registry.card(arguments.backbone)
    height, width = card.input_size
    scenes = sample_scenes(split_seeds("test", 1))
    frames = render(scenes, height=height, width=width).images[0].numpy()
    clip: Any = SimpleNamespace(frames=frames, content_hash="world test 0")
    layers = list(range(card.layers))
    results: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    kept: dict[str, Any] = {}
    for device, dtype in (("cpu", "float32"), ("cuda", "float32"), ("cuda", "bfloat16")):
        backbone = registry.load(arguments.backbone, device=device, dtype=dtype)
        backbone.extract(clip, layers=layers, sigma=arguments.sigma)
        start = time.monotonic()
        kept[f"{device} {dtype}"] = backbone.extract(clip, layers=layers, sigma=arguments.sigma)
        results[f"seconds {device} {dtype}"] = round(time.monotonic() - start, 3)
    for name in ("cuda float32", "cuda bfloat16"):
        results[name] = {}
        for layer in layers:
            ours = kept[name][layer].values.astype(np.float32)
            truth = kept["cpu float32"][layer].values.astype(np.float32)
            difference = np.abs(ours - truth)
            results[name][layer] = {
                "max": round(float(difference.max() / truth.std()), 5),
                "mean": round(float(difference.mean() / truth.std()), 6),
            }
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
