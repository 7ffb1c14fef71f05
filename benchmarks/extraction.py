"""Speed and memory of feature extraction with Wan 2.1, beside the procedure of the released code.

    python benchmarks/extraction.py            # a GPU: 1.3B and 14B at their true size
    python benchmarks/extraction.py --tiny     # the same code with a tiny model, on any machine

Weights are random, made on the device in the wanted precision; nothing is downloaded. 81 frames of
480 x 832; every row is the median of warm runs. The released procedure is done in the same run:
Wan in float32, the clip encoded again for every cell, all blocks run, one layer kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from explorer.backbones import _build, _latents, _wan, registry
from explorer.backbones.base import BackboneCard
from explorer.clip import Clip, clip_from_frames
from explorer.noise import WanSchedule

SCHEDULE = WanSchedule(3.0)
SIGMA = 0.5
ROW_OF_SIGMAS = (0.1, 0.3, 0.5, 0.8)
# transformer/config.json of the published repositories; what is not named is diffusers' default.
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "wan2.1-1.3b": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    "wan2.1-14b": {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40},
}
TINY_TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 48,
    "num_layers": 4,
}
TINY_VAE: dict[str, Any] = {
    "base_dim": 4,
    "z_dim": 4,
    "dim_mult": [1, 1, 2, 2],
    "num_res_blocks": 1,
    "latents_mean": [0.0] * 4,
    "latents_std": [1.0] * 4,
}
ATTENTION = {
    "chosen by torch": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
}
VAE_LAYOUTS = (
    ("float32", "float32", False),
    ("bfloat16", "bfloat16", False),
    ("bfloat16, channels last", "bfloat16", True),
)


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        what: was done.
        seconds: of each run.
        peak_bytes: most memory on the device, weights included; 0 without a GPU.
        feature_bytes: that arrived in host memory.
        wanted: seconds that the median should not exceed; None for rows to compare with.
    """

    what: str
    seconds: list[float]
    peak_bytes: int
    feature_bytes: int
    wanted: float | None = None

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

    def measure(self, what: str, run: Callable[[], object], *, wanted: float | None = None) -> Row:
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
            delivered = _feature_bytes(result)
            del result
        peak = torch.cuda.max_memory_allocated(self.device) if self.on_gpu else 0
        row = Row(what, seconds, peak, delivered, None if self.tiny else wanted)
        print(_line(row), flush=True)
        return row

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


def _feature_bytes(result: object) -> int:
    if isinstance(result, int):
        return result
    if isinstance(result, dict):
        return sum(_feature_bytes(value) for value in result.values())
    if isinstance(result, np.ndarray):
        return result.nbytes
    values = getattr(result, "values", None)
    return values.nbytes if isinstance(values, np.ndarray) else 0


def random_tensors(
    network: torch.nn.Module, device: torch.device
) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights under which activations neither vanish nor grow, made on the device."""
    generator = torch.Generator(device).manual_seed(0)
    for name, empty in network.state_dict().items():
        noise = torch.randn(empty.shape, generator=generator, device=device)
        if empty.dim() > 1 and max(empty.shape) < empty.numel():
            yield name, noise / empty[0].numel() ** 0.5
        elif name.endswith(("weight", "gamma")):
            yield name, 1 + 0.1 * noise
        else:
            yield name, 0.1 * noise


def make(kind: str, config: dict[str, Any], *, device: torch.device, dtype: str) -> Any:
    """A model of diffusers, built without memory and filled part by part."""
    import diffusers

    model: Any = getattr(diffusers, kind)
    has_blocks = kind == "WanTransformer3DModel"
    network = _build.build_empty(
        lambda: model(**config),
        (lambda: model(**{**config, "num_layers": 0})) if has_blocks else None,
    )
    tensors = random_tensors(network, device)
    where = Path("random weights")
    return _build.fill(network, tensors, device=str(device), dtype=dtype, where=where)


def make_vae(setting: Setting, dtype: str, *, channels_last: bool) -> Any:
    config = TINY_VAE if setting.tiny else {}
    vae = make("AutoencoderKLWan", config, device=setting.device, dtype=dtype)
    if channels_last:
        _build.channels_last(vae)
    return vae


def make_transformer(setting: Setting, name: str, dtype: str) -> Any:
    config = TINY_TRANSFORMER if setting.tiny else TRANSFORMERS[name]
    return make("WanTransformer3DModel", config, device=setting.device, dtype=dtype)


def make_prompt(transformer: Any, device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 512, transformer.config.text_dim, generator=generator).to(device)


@torch.inference_mode()
def released_cell(
    vae: Any, transformer: Any, prompt: torch.Tensor, clip: Clip, layer: int
) -> np.ndarray:
    """One cell as the released code computes it: encode, noise, all blocks, one layer kept."""
    level = SCHEDULE.at_sigma(SIGMA)
    device = prompt.device
    latents = _latents.encode_video(vae, _latents.to_video(clip.frames, device))
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
    vae = make_vae(setting, "float32", channels_last=False)
    transformer = make_transformer(setting, name, "float32")
    prompt = make_prompt(transformer, setting.device)
    # torch's default, which the released code leaves alone and which loading here turns off
    torch.backends.cudnn.allow_tf32 = True
    row = setting.measure(
        "released procedure, one cell: float32, VAE, all blocks",
        lambda: released_cell(vae, transformer, prompt, clip, layer),
    )
    torch.backends.cudnn.allow_tf32 = False
    return [row]


def vaes(setting: Setting, name: str) -> tuple[list[Row], tuple[str, bool]]:
    """Encoding in each precision and layout; also the fastest way in bfloat16."""
    card = setting.card(name)
    video = _latents.to_video(setting.clip(card).frames, setting.device)
    rows, ways = [], {}
    for words, dtype, last in VAE_LAYOUTS:
        vae = make_vae(setting, dtype, channels_last=last)

        def encode(vae: Any = vae) -> None:
            _latents.encode_video(vae, video)

        rows.append(setting.measure(f"VAE: {words}", encode))
        if dtype != "float32":
            ways[rows[-1].median] = (dtype, last)
    return rows, ways[min(ways)]


def ours(setting: Setting, name: str, way: tuple[str, bool], wanted: dict[str, float]) -> list[Row]:
    """What a user of the library runs, in bfloat16."""
    card = setting.card(name)
    clip, layer = setting.clip(card), card.default_cell[0]
    transformer = make_transformer(setting, name, "bfloat16")
    if setting.compiled:
        for block in transformer.blocks:
            # The block's own call stays, and with it the hooks that read and end the pass.
            block.forward = torch.compile(block.forward)
    backbone = _wan.WanBackbone(
        card,
        make_vae(setting, way[0], channels_last=way[1]),
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
            arrived += _feature_bytes(found)
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
    rows = [setting.measure(what, run, wanted=wanted.get(key)) for key, what, run in tasks]
    for words, by in ATTENTION.items() if setting.on_gpu else ():
        what = f"blocks to {layer} and nothing else, attention: {words}"
        try:
            rows.append(setting.measure(what, partial(blocks, _nothing, [layer], by)))
        except RuntimeError as error:  # this GPU or this torch has no such kernel
            print(f"| {what} | {str(error).splitlines()[0]} | | | |", flush=True)
    return rows


def _nothing(tokens: torch.Tensor) -> None:
    """Keep nothing of a layer."""


def _line(row: Row) -> str:
    goal = "" if row.wanted is None else f"{row.wanted:.2f}"
    return (
        f"| {row.what} | {row.median:.3f} | {goal} | {row.peak_bytes / 2**30:.1f} | "
        f"{row.feature_bytes / 1e6:.1f} |"
    )


def run(setting: Setting, *, models: list[str], with_released: bool) -> dict[str, Any]:
    """All rows of the wanted models."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    gpu = torch.cuda.get_device_name(setting.device) if setting.on_gpu else "none"
    print(f"{gpu}, torch {torch.__version__}, {setting.repeats} warm runs", flush=True)
    rows: dict[str, list[Row]] = {}
    way = ("bfloat16", True)
    for name in models:
        title = f"{name}{' (tiny stand-in)' if setting.tiny else ''}"
        print(f"\n| {title} | seconds | wanted | peak GiB | features MB |\n|---|---|---|---|---|")
        rows[name] = []
        if name == "wan2.1-1.3b":
            if with_released:
                rows[name] += released(setting, name)
            found, way = vaes(setting, name)
            rows[name] += found
            wanted = {"first": 1.3, "further": 0.42, "all": 0.62}
        else:
            wanted = {"further": 1.7}
        rows[name] += ours(setting, name, way, wanted)
    return {
        "gpu": gpu,
        "torch": torch.__version__,
        "vae": {"dtype": way[0], "channels_last": way[1]},
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
    parser.add_argument("--compile", action="store_true", help="blocks through torch.compile")
    parser.add_argument("--cudnn-benchmark", action="store_true", help="let cuDNN try kernels")
    parser.add_argument("--json", default=None, help="write all figures to this file")
    arguments = parser.parse_args()
    device = arguments.device or ("cpu" if arguments.tiny else "cuda")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device: --tiny runs anywhere")
    torch.backends.cudnn.benchmark = arguments.cudnn_benchmark
    setting = Setting(torch.device(device), arguments.repeats, arguments.tiny, arguments.compile)
    result = run(
        setting,
        models=arguments.models or list(TRANSFORMERS),
        with_released=not arguments.no_released,
    )
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
