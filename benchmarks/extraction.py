"""Speed and memory of feature extraction with Wan 2.1, beside the procedure of the released code.

    python benchmarks/extraction.py            # a GPU: 1.3B and 14B at their true size
    python benchmarks/extraction.py --tiny     # the same code with a tiny model, on any machine

Needs torch, diffusers, numpy and safetensors, and this folder on the path (PYTHONPATH=. where the
package is not installed). Weights are random, made on the device in the wanted precision; nothing
is downloaded. 81 frames of 480 x 832; every row is the median of warm runs. The released procedure
is done in the same run: Wan in float32, the clip encoded again for every cell, all blocks run, one
layer kept. All of it takes about two minutes on an H200.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import extraction_vae
import numpy as np
import torch
from extraction_measure import Row, Setting, feature_bytes
from extraction_models import TRANSFORMERS, make_prompt
from torch.nn.attention import SDPBackend, sdpa_kernel

from explorer.backbones import _latents, _wan
from explorer.backbones._compiled import compile_blocks
from explorer.clip import Clip
from explorer.noise import WanSchedule

SCHEDULE = WanSchedule(3.0)
SIGMA = 0.5
ROW_OF_SIGMAS = (0.1, 0.3, 0.5, 0.8)
ATTENTION = {
    "chosen by torch": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
}
LIMITS = {"wan2.1-14b": 32.0}
"""GiB on the device that a model should not exceed."""


@torch.inference_mode()
def released_cell(
    vae: Any, transformer: Any, prompt: torch.Tensor, clip: Clip, layer: int
) -> np.ndarray:
    """One cell as the released code computes it: encode, noise, all blocks, one layer kept."""
    level = SCHEDULE.at_sigma(SIGMA)
    device = prompt.device
    latents = _latents.encode_video(vae, _latents.to_video(clip.frames, device), slots=1)
    noise = torch.randn_like(latents)
    kept: list[torch.Tensor] = []
    handle = transformer.blocks[layer].register_forward_hook(
        lambda module, inputs, output: kept.append(output)
    )
    transformer(
        hidden_states=level.signal * latents + level.noise * noise,
        timestep=torch.tensor([level.timestep], device=device),
        encoder_hidden_states=prompt,
        return_dict=False,
    )
    handle.remove()
    return np.asarray(kept[0].to(torch.float16).cpu().numpy())


def released(setting: Setting, name: str) -> list[Row]:
    """The released procedure and its two halves."""
    card = setting.card(name)
    clip, layer = setting.clip(card), card.default_cell[0]
    vae = setting.vae("float32")
    transformer = setting.transformer(name, "float32")
    prompt = make_prompt(transformer, setting.device)
    # torch's default, which the released code leaves alone and which loading here turns off
    torch.backends.cudnn.allow_tf32 = True
    row = setting.measure(
        "released procedure, one cell: float32, VAE, all blocks",
        lambda: released_cell(vae, transformer, prompt, clip, layer),
    )
    torch.backends.cudnn.allow_tf32 = False
    return [row]


def ours(setting: Setting, name: str, wanted: dict[str, float]) -> list[Row]:
    """What a user of the library runs, in bfloat16."""
    card = setting.card(name)
    clip, layer = setting.clip(card), card.default_cell[0]
    transformer = setting.transformer(name, "bfloat16")
    if setting.compiled:
        compile_blocks(list(transformer.blocks))
    backbone = _wan.WanBackbone(
        card,
        setting.vae("bfloat16", "few steps"),
        transformer,
        weights_hash="random",
        encoder_hash="random",
        trained=False,
        schedule=SCHEDULE,
        prompt=make_prompt(transformer, setting.device),
    )
    latents = backbone.encode(clip)
    every = range(card.layers)
    noisy = torch.from_numpy(latents)[None].to(setting.device)

    def cell() -> object:
        return backbone.extract(clip, layers=[layer], sigma=SIGMA)

    def further(layers: Any = (layer,), sigma: float = SIGMA) -> object:
        return backbone.extract(clip, layers=layers, sigma=sigma, latents=latents)

    def blocks(
        keep: Callable[[torch.Tensor], object], layers: Sequence[int] = every, by: Any = None
    ) -> object:
        with nullcontext() if by is None else sdpa_kernel([by]):
            return _wan.block_outputs(
                transformer, noisy, 500.0, layers=layers, prompt=backbone.prompt, keep=keep
            )

    def row_of_sigmas() -> object:
        fresh = backbone.encode(clip)
        arrived = 0
        for sigma in ROW_OF_SIGMAS:
            found = backbone.extract(clip, layers=every, sigma=sigma, latents=fresh)
            arrived += feature_bytes(found)
        return arrived

    tasks: list[tuple[str, str, Callable[[], object]]] = [
        ("first", f"first cell: VAE and blocks to {layer}", cell),
        ("further", f"a further sigma: blocks to {layer}", further),
        ("all", "all layers at one sigma, in host memory", lambda: further(every)),
        ("", "the same, each layer waited for", lambda: blocks(_latents.to_float16)),
        ("", "the same, nothing delivered", lambda: blocks(_nothing)),
        ("row", f"VAE, then {len(ROW_OF_SIGMAS)} sigmas x all layers", row_of_sigmas),
    ]
    if name != "wan2.1-1.3b":
        tasks = tasks[:2]
    limit = LIMITS.get(name)
    rows = [
        setting.measure(what, run, wanted=wanted.get(key), limit_gib=limit)
        for key, what, run in tasks
    ]
    for words, by in ATTENTION.items() if setting.attention else ():
        what = f"blocks to {layer} and nothing else, attention: {words}"
        rows += setting.tried(what, partial(blocks, _nothing, [layer], by))
    return rows


def _nothing(tokens: torch.Tensor) -> None:
    """Keep nothing of a layer."""


def run(
    setting: Setting, *, models: list[str], with_released: bool, with_vae: bool
) -> dict[str, Any]:
    """All rows of the wanted models."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    gpu = torch.cuda.get_device_name(setting.device) if setting.on_gpu else "none"
    print(f"{gpu}, torch {torch.__version__}, {setting.repeats} warm runs", flush=True)
    rows: dict[str, list[Row]] = {}
    for name in models:
        title = f"{name}{' (tiny stand-in)' if setting.tiny else ''}"
        print(f"\n| {title} | seconds | wanted | peak GiB | held GiB | features MB |")
        print("|---|---|---|---|---|---|")
        rows[name] = []
        if name == "wan2.1-1.3b":
            if with_released:
                rows[name] += released(setting, name)
            if with_vae:
                rows[name] += extraction_vae.rows(setting, name)
            wanted = {"first": 1.3, "further": 0.42, "all": 0.62}
        else:
            wanted = {"further": 1.7}
        rows[name] += ours(setting, name, wanted)
    return {
        "gpu": gpu,
        "torch": torch.__version__,
        "compiled": setting.compiled,
        "rows": {
            name: [{**dataclasses.asdict(row), "median": row.median} for row in found]
            for name, found in rows.items()
        },
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on the processor")
    parser.add_argument("--device", default=None, help="cuda unless --tiny")
    parser.add_argument("--repeats", type=int, default=3, help="warm runs of each row")
    parser.add_argument("--models", nargs="+", choices=list(TRANSFORMERS), default=None)
    parser.add_argument("--no-released", action="store_true", help="leave the released code out")
    parser.add_argument("--no-vae", action="store_true", help="leave the VAE's own rows out")
    parser.add_argument("--attention", action="store_true", help="compare its kernels too")
    parser.add_argument("--compile", action="store_true", help="blocks, and the VAE too")
    parser.add_argument("--cudnn-benchmark", action="store_true", help="let cuDNN try kernels")
    parser.add_argument("--json", default=None, help="write all figures to this file")
    arguments = parser.parse_args()
    device = arguments.device or ("cpu" if arguments.tiny else "cuda")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device: --tiny runs anywhere")
    torch.backends.cudnn.benchmark = arguments.cudnn_benchmark
    setting = Setting(
        torch.device(device),
        arguments.repeats,
        tiny=arguments.tiny,
        compiled=arguments.compile,
        attention=arguments.attention,
    )
    result = run(
        setting,
        models=arguments.models or list(TRANSFORMERS),
        with_released=not arguments.no_released,
        with_vae=not arguments.no_vae,
    )
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
