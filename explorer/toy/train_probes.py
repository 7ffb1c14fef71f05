r"""Train the probe grid of the toy models: every cell on the same clips for the same steps.

    torchrun --nproc_per_node=2 -m explorer.toy.train_probes --vae runs/vae \
        --transformer runs/transformer --out runs/probes

`--transformer` takes the runs of several models, each of which says which one it is.

Features are extracted on the fly from a pool of latents with fresh noise at every step; the cells
are divided among the processes. Losses: `explorer.probe.losses`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from explorer.backbones._untrained import untrained_transformer
from explorer.data.world.spec import WORLD_VERSION
from explorer.data.world.splits import split_seeds
from explorer.nets.vggt import VGGT, VGGTConfig
from explorer.nets.vjepa import VideoViT, VideoViTConfig
from explorer.probe import step
from explorer.probe.losses import Targets
from explorer.probe.model import Probe, ProbeConfig
from explorer.probe.step import METRICS, mixed
from explorer.toy import parallel
from explorer.toy.cells import Cell, first_grid, parse_cell
from explorer.toy.config import FRAMES, HEIGHT, JEPA_CONFIG, VARIANTS, VGGT_CONFIG, WIDTH
from explorer.toy.graphs import graphed
from explorer.toy.jepa import TARGET
from explorer.toy.latents import fingerprint, load_vae
from explorer.toy.pool import Renderer
from explorer.toy.probe_pool import (
    GRID,
    MAPS,
    TRANSFORMERS,
    Needs,
    Pool,
    Sources,
    make_pool,
)
from explorer.toy.schedule import Clock, Every
from explorer.toy.shards import load_checkpoint, load_shards, save_shards

RANDOM_SEED = 0


def losses_of_tokens(probe: Probe, tokens: Tensor, targets: Targets, *, autocast: bool) -> Tensor:
    """`METRICS` of a batch of projected features (B, S, h*w, dim) on the toys' grid."""
    return step.losses_of_tokens(probe, tokens, targets, grid=GRID, size=MAPS, autocast=autocast)


def losses_of(
    probe: Probe,
    features: Tensor,
    targets: Targets,
    *,
    autocast: bool,
    rest: Callable[..., Tensor] = losses_of_tokens,
) -> Tensor:
    """(total, points, depth, camera) of a batch of features (B, S, h, w, C)."""
    with mixed(features.device.type, enabled=autocast):
        tokens = probe.backbone.input_proj(features.flatten(2, 3))
    return rest(probe, tokens, targets, autocast=autocast)


def training_step(
    probe: Probe, rest: Callable[..., Tensor], *, autocast: bool
) -> Callable[..., Tensor]:
    """Forward and backward of one probe as a function of features and the targets' tensors."""

    def run(features: Tensor, *targets: Tensor) -> Tensor:
        losses = losses_of(probe, features, Targets(*targets), autocast=autocast, rest=rest)
        losses[0].backward()
        return losses.detach()

    return run


@contextmanager
def evaluating(probes: dict[str, Probe]) -> Iterator[None]:
    """All probes without gradients."""
    with torch.no_grad():
        for probe in probes.values():
            probe.eval()
        yield
        for probe in probes.values():
            probe.train()


def validate(
    probes: dict[str, Probe], sources: Sources, pool: Pool, *, batch: int, autocast: bool
) -> dict[str, dict[str, float]]:
    """Mean losses of each cell on held-out clips, with fixed noise."""
    device = pool.latents.device
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(pool.latents.shape, generator=generator)
    sums = {name: torch.zeros(len(METRICS), device=device) for name in probes}
    with evaluating(probes):
        for start in range(0, len(pool.latents), batch):
            index = torch.arange(start, min(start + batch, len(pool.latents)), device=device)
            features = sources(*pool.inputs(index, noise[index.cpu()].to(device)))
            targets = pool.targets(index)
            for name, probe in probes.items():
                losses = losses_of(probe, features[name], targets, autocast=autocast)
                sums[name] += losses * len(index)
    return {
        name: dict(
            zip((f"validation_{metric}" for metric in METRICS),
                (total / len(pool.latents)).tolist(), strict=True)
        )
        for name, total in sums.items()
    }  # fmt: skip


def load_models(
    runs: Sequence[Path],
    cells: Sequence[Cell],
    vae: Any,
    *,
    vggt: Path | None = None,
    jepa: Path | None = None,
) -> dict[str, Any]:
    """The networks that the cells read: transformers by the names in their runs' cards.

    Raises:
        ValueError: a run is of another VAE, or a cell's transformer is not among them.
    """
    device, of_vae = vae.device, fingerprint(vae.state_dict())
    models: dict[str, Any] = {}
    for run in runs:
        tensors, card = load_checkpoint(run, "transformer")
        if card.get("vae", of_vae) != of_vae:
            raise ValueError(f"{run} was trained on the latents of another VAE: give its --vae")
        name = card.get("model", "toy-wan")
        models[name] = WanTransformer3DModel(**VARIANTS[name].config)
        models[name].load_state_dict(tensors)
    wanted = {cell.backbone for cell in cells} & set(TRANSFORMERS)
    for name in sorted(wanted - set(models)):
        if name in VARIANTS:
            raise ValueError(f"no run of {name} is among --transformer {list(map(str, runs))}")
        shape = WanTransformer3DModel(**TRANSFORMERS[name].config)
        models[name] = untrained_transformer(dict(shape.config), seed=RANDOM_SEED)
    for name, own in (("vggt", vggt), ("jepa", jepa)):
        if any(cell.backbone == f"toy-{name}" for cell in cells):
            if own is None:
                raise ValueError(f"cells of toy-{name} need its run: give --{name}")
            models[f"toy-{name}"] = _network(name, own)
            wanted.add(f"toy-{name}")
    read = {name: model for name, model in models.items() if name in wanted}
    return {name: m.to(device).eval().requires_grad_(False) for name, m in read.items()}


def _network(name: str, run: Path) -> nn.Module:
    tensors, _ = load_checkpoint(run, name)
    if name == "vggt":
        expert = VGGT(VGGTConfig(**VGGT_CONFIG))
        expert.load_state_dict(tensors)
        return expert
    encoder = VideoViT(VideoViTConfig(**JEPA_CONFIG))
    if any(key.startswith(TARGET) for key in tensors):  # a run; shipped is the encoder alone
        tensors = {k.removeprefix(TARGET): v for k, v in tensors.items() if k.startswith(TARGET)}
    encoder.load_state_dict(tensors)
    return encoder


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--transformer", type=Path, nargs="+", required=True)
    parser.add_argument("--vggt", type=Path, help="run of train_vggt, for cells of toy-vggt")
    parser.add_argument("--jepa", type=Path, help="run of train_jepa, for cells of toy-jepa")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cells", help="backbone:layer:sigma,... instead of the first grid")
    parser.add_argument("--seconds", type=float, default=500.0, help="in all, the pool included")
    parser.add_argument("--steps", type=int, help="of this slice at most; else time alone ends it")
    parser.add_argument("--pool", type=int, default=4096, help="clips a process; all share them")
    parser.add_argument("--held-out", type=int, default=128)
    parser.add_argument("--first-seed", type=int, default=500_000_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--render-batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of the probes and the order of clips")
    parser.add_argument("--save-seconds", type=float, default=60.0, help="between checkpoints")
    parser.add_argument("--resume", type=Path, help="of a run with as many processes")
    parser.add_argument("--compile", action="store_true", help="compile the probes' steps")
    parser.add_argument("--no-graph", action="store_true")
    arguments = parser.parse_args()

    began = time.monotonic()
    worker = parallel.join()
    on_gpu = worker.device.startswith("cuda")
    graph = on_gpu and not arguments.no_graph
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    cells = first_grid()
    if arguments.cells:
        cells = [parse_cell(text) for text in arguments.cells.split(",")]
    share = -(-len(cells) // worker.count)
    mine = cells[worker.rank * share : (worker.rank + 1) * share]

    vae = load_vae(arguments.vae, worker.device)
    renderer = Renderer(worker.device, workers=8 if on_gpu else 0)
    seeds = split_seeds(
        "train", arguments.pool, start=arguments.first_seed + worker.rank * arguments.pool
    )
    options = {
        "batch": arguments.render_batch,
        "on_gpu": on_gpu,
        "needs": Needs.of(cells),
    }
    own = make_pool(renderer, vae, seeds, **options)
    pool = own.joined(lambda part: parallel.gather_first(part, worker))
    validation = split_seeds("validation", arguments.held_out, start=1000)
    held_out = make_pool(renderer, vae, validation, **options)
    renderer.close()
    models = load_models(arguments.transformer, mine, vae, vggt=arguments.vggt, jepa=arguments.jepa)
    del own, vae
    if worker.leads:
        print(f"pool {len(pool.latents)} in {time.monotonic() - began:.0f} s", flush=True)

    sources = Sources(mine, models, worker.device)
    torch.manual_seed(arguments.seed)
    probes = {
        cell.name: Probe(ProbeConfig.compact(sources.wide(cell.backbone))).to(worker.device)
        for cell in mine
    }
    earlier: dict[str, Any] = {"steps": 0, "seconds": 0.0, "history": []}
    if arguments.resume:
        tensors, earlier = load_shards(arguments.resume, f"probes{worker.rank}")
        for name, probe in probes.items():
            probe.load_state_dict(
                {key: tensors[f"{name}/{key}"].float() for key in probe.state_dict()}
            )
    for module in (module for probe in probes.values() for module in probe.modules()):
        if on_gpu and isinstance(module, nn.Conv2d):  # tokens arrive with channels last
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    order = torch.Generator().manual_seed(arguments.seed)
    noise_generator = torch.Generator(device=worker.device).manual_seed(arguments.seed)

    def draw() -> tuple[list[Tensor], Targets]:
        index = torch.randint(len(pool.latents), (arguments.batch,), generator=order)
        index = index.to(worker.device)
        shape = (len(index), *pool.latents.shape[1:])
        noise = torch.randn(shape, generator=noise_generator, device=worker.device)
        return pool.inputs(index, noise), pool.targets(index)

    inputs, targets = draw()
    read = graphed(sources, inputs, enabled=graph)
    features = read(*inputs)
    steps, optimizers = {}, {}
    # One function for all probes: the second reuses what was compiled for the first.
    rest: Callable[..., Tensor] = losses_of_tokens
    if arguments.compile:
        rest = torch.compile(rest, dynamic=False)
    for name, probe in probes.items():
        parameters: list[nn.Parameter] = list(probe.parameters())
        steps[name] = graphed(
            training_step(probe, rest, autocast=on_gpu),
            [features[name], *targets],
            parameters,
            enabled=graph,
        )
        optimizers[name] = torch.optim.AdamW(
            parameters, lr=arguments.rate, betas=(0.9, 0.95), weight_decay=0.02, fused=on_gpu
        )
    parallel.wait(worker)  # the slowest to compile must not eat the others' training time
    reserve = min(45.0, 0.2 * arguments.seconds)  # for the validation
    left = max(arguments.seconds - (time.monotonic() - began) - reserve, 5.0)
    clock = Clock(
        left,
        peak=arguments.rate,
        floor=1e-5,
        warmup=100,
        worker=worker,
        steps=arguments.steps,
    )
    history: list[dict[str, Any]] = [*earlier["history"]]

    def store(results: dict[str, dict[str, float]]) -> None:
        """Write this process's probes; without results they can be resumed, not shipped."""
        tensors = {
            f"{name}/{key}": value.to(torch.float16)
            for name, probe in probes.items()
            for key, value in probe.state_dict().items()
        }
        card = {
            "processes": worker.count,
            "steps": earlier["steps"] + clock.step,
            "batch": arguments.batch,
            "seed": arguments.seed,
            "seconds": round(earlier["seconds"] + clock.elapsed, 1),
            "data": {
                "world": "procedural",
                "world_version": WORLD_VERSION,
                "split": "train",
                "first_seed": arguments.first_seed,
                "clips": len(pool.latents),
                "frames": FRAMES,
                "size": [HEIGHT, WIDTH],
            },
            "cells": {
                cell.name: {
                    "backbone": cell.backbone,
                    "layer": cell.layer,
                    "sigma": cell.sigma,
                    "config": probes[cell.name].config.to_dict(),
                    "metrics": {
                        **results.get(cell.name, {}),
                        "validation_clips": len(held_out.latents),
                    },
                }
                for cell in mine
            },
            "finished": bool(results),
            "history": history,
        }
        save_shards(tensors, arguments.out, f"probes{worker.rank}", card)

    save = Every(arguments.save_seconds)
    while True:
        inputs, targets = draw()
        features = read(*inputs)
        recent = {}
        for name, probe in probes.items():
            recent[name] = steps[name](features[name], *targets)
            optimizer = optimizers[name]
            for group in optimizer.param_groups:
                group["lr"] = clock.rate()
            torch.nn.utils.clip_grad_norm_(probe.parameters(), 1.0)
            optimizer.step()
        more = clock.advance()
        if clock.step % 100 == 0 or not more:
            entry = {name: round(float(losses[0]), 4) for name, losses in recent.items()}
            history.append({"step": clock.step, "seconds": round(clock.elapsed, 1), **entry})
            if worker.leads:
                print(json.dumps(history[-1]), flush=True)
        if not more:
            break
        if save.due():
            store({})

    store({})
    results = validate(probes, sources, held_out, batch=arguments.batch, autocast=on_gpu)
    store(results)
    for name, metrics in results.items():
        print(name, {key: round(value, 4) for key, value in metrics.items()}, flush=True)
    parallel.leave(worker)


if __name__ == "__main__":
    main()
