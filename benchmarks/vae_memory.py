"""What encoding with Wan 2.1's VAE takes at once, counted from shapes: needs no GPU.

    python benchmarks/vae_memory.py          # 81 frames of 480 x 832
    python benchmarks/vae_memory.py --tiny   # the same code with a tiny VAE

Each row is a number of latent slots in one pass. As in benchmarks/reference_memory.py they are run
on tensors that have shapes and no values; workspaces of libraries are not in it. The clip counts
twice: in float32, as its owner holds it, and in the VAE's precision.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from extraction_models import TINY_VAE
from reference_memory import Alive
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from explorer.backbones import _wan_vae
from explorer.backbones._weights import size_text

SHAPE = (1, 3, 81, 480, 832)
TINY_SHAPE = (1, 3, 17, 64, 96)
SLOTS = (1, 2, 3, 5, 10, 20)
WAYS = (
    ("float32", torch.float32, False),
    ("bfloat16", torch.bfloat16, False),
    ("bfloat16, layers in few steps", torch.bfloat16, True),
)


def counted(
    config: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype, slots: int, *, quick: bool
) -> int:
    """Most bytes at once beside the weights, on a GPU that need not be there."""
    import diffusers

    library: Any = diffusers
    with torch.device("meta"):
        vae = library.AutoencoderKLWan(**config).eval()
    with FakeTensorMode(), torch.inference_mode(), Alive() as alive:
        for module in vae.modules():
            for name, weights in list(module._parameters.items()):
                filled = torch.empty(weights.shape, dtype=dtype)
                module._parameters[name] = nn.Parameter(filled, requires_grad=False)
        if quick:
            _wan_vae.replace_layers(vae)
        weights = alive.peak = alive.bytes
        video = torch.empty(shape)
        _wan_vae.encode(vae, video.to(dtype), slots)
    return alive.peak - weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a tiny VAE and clip")
    arguments = parser.parse_args()
    config, shape = (TINY_VAE, TINY_SHAPE) if arguments.tiny else ({}, SHAPE)
    most = (shape[2] - 1) // 4
    print(f"| slots a pass | {' | '.join(words for words, _, _ in WAYS)} |\n|---|---|---|---|")
    for slots in [each for each in SLOTS if each <= most]:
        found = [counted(config, shape, dtype, slots, quick=quick) for _, dtype, quick in WAYS]
        print(f"| {slots} | {' | '.join(map(size_text, found))} |", flush=True)


if __name__ == "__main__":
    main()
