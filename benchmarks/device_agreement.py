"""How far a look on a GPU is from that on the CPU, in float32 and bfloat16.

    python benchmarks/device_agreement.py [--backbone toy-wan]

Of features: the mean and the largest absolute difference over their standard deviation, by layer.
Of what the shipped probe of the backbone's own cell makes of them, where there is one: the mean and
the largest distance between its points, in units of the scene.
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
from explorer.backbones.base import BackboneCard
from explorer.data.world import render, sample_scenes
from explorer.data.world.splits import split_seeds
from explorer.features import Features
from explorer.probe.checkpoint import find_probe, load_probe
from explorer.probe.predict import predict


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="toy-wan")
    parser.add_argument("--sigma", type=float, help="default: the backbone's own")
    parser.add_argument("--device", default="cuda", help="what is held against the CPU")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device")
    card = registry.card(arguments.backbone)
    height, width = card.input_size
    scenes = sample_scenes(split_seeds("test", 1))
    frames = render(scenes, height=height, width=width).images[0].numpy()
    clip: Any = SimpleNamespace(frames=frames, content_hash="world test 0")
    layers = list(range(card.layers))
    sigma = card.default_cell[1] if arguments.sigma is None else arguments.sigma
    gpu = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "none"
    results: dict[str, Any] = {"device": gpu, "torch": torch.__version__}
    kept: dict[str, Any] = {}
    runs = [("cpu", "float32")]
    runs += [(arguments.device, dtype) for dtype in ("float32", "bfloat16")]
    for device, dtype in runs:
        backbone = registry.load(arguments.backbone, device=device, dtype=dtype)
        backbone.extract(clip, layers=layers, sigma=sigma)
        start = time.monotonic()
        kept[f"{device} {dtype}"] = backbone.extract(clip, layers=layers, sigma=sigma)
        results[f"seconds {device} {dtype}"] = round(time.monotonic() - start, 3)
    for device, dtype in runs[1:]:
        name = f"{device} {dtype}"
        results[name] = {}
        for layer in layers:
            ours = kept[name][layer].values.astype(np.float32)
            truth = kept["cpu float32"][layer].values.astype(np.float32)
            difference = np.abs(ours - truth)
            results[name][layer] = {
                "max": round(float(difference.max() / truth.std()), 5),
                "mean": round(float(difference.mean() / truth.std()), 6),
            }
        points = predicted(card, kept[name], device)
        expected = predicted(card, kept["cpu float32"], "cpu")
        if points is not None and expected is not None:
            off = np.linalg.norm(points - expected, axis=-1)
            results[name]["points"] = {
                "max": round(float(off.max()), 6),
                "mean": round(float(off.mean()), 8),
            }
    print(json.dumps(results, indent=1))


def predicted(card: BackboneCard, features: dict[int, Features], device: str) -> np.ndarray | None:
    """(S, H, W, 3) points of the shipped probe of the card's own cell, run on a device."""
    layer, sigma = card.default_cell
    found = find_probe(card.id, layer, sigma)
    if found is None:
        return None
    probe = load_probe(found, backbone_hash=registry.hashes(card.id).weights, device=device)
    points: np.ndarray = predict(probe, features[layer]).points
    return points


if __name__ == "__main__":
    main()
