"""Train toy-vggt, the feed-forward 3D expert, on exact geometry of rendered frames.

    torchrun --nproc_per_node=2 -m explorer.toy.train_vggt --out runs/vggt --compile

The network is `explorer.nets.vggt.VGGT`; the losses are those of the probes (points, depth, camera,
confidence) in the same sum. Most steps see the five frames that stand for toy-wan's slots, some a
random 2 to 5 of them in random order; EMA weights; resumes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from explorer.backbones._toy_vggt import to_images
from explorer.data.world.splits import split_seeds
from explorer.nets.vggt import VGGT, VGGTConfig
from explorer.probe.losses import Targets, probe_loss
from explorer.toy import parallel
from explorer.toy.config import HEIGHT, VGGT_CONFIG, VGGT_MAPS, WIDTH
from explorer.toy.pool import Renderer
from explorer.toy.probe_pool import SLOT_FRAMES, Views, make_views
from explorer.toy.shards import load_checkpoint
from explorer.toy.train_slice import Losses, Training, add_options, spans_of

NAMES = ("loss", "points", "depth", "camera")
FEWEST = 2


def losses_of(model: VGGT, frames: Tensor, *targets: Tensor, autocast: bool) -> Tensor:
    """(trained sum, points, depth, camera) of uint8 frames (B, S, H, W, 3)."""
    patch = model.config.patch
    grid = (frames.shape[2] // patch, frames.shape[3] // patch)
    with torch.autocast(
        frames.device.type, dtype=torch.bfloat16, enabled=autocast, cache_enabled=False
    ):
        output = model.geometry(model.trunk(to_images(frames)), grid, VGGT_MAPS)
    found = probe_loss(output, Targets(*targets))
    return torch.stack([found[name] for name in ("total", "points", "depth", "camera")])


def draw_slots(generator: torch.Generator, share: float) -> list[int] | None:
    """All slots in order (None), or with probability `share` a random 2 to 5 in random order."""
    if float(torch.rand(1, generator=generator)) >= share:
        return None
    count = int(torch.randint(FEWEST, len(SLOT_FRAMES) + 1, (1,), generator=generator))
    order: list[int] = torch.randperm(len(SLOT_FRAMES), generator=generator)[:count].tolist()
    return order


@torch.no_grad()
def validate(model: VGGT, pool: Views, *, batch: int, autocast: bool) -> dict[str, float]:
    """Mean losses on held-out clips, all slots in order."""
    model.eval()
    total = torch.zeros(len(NAMES), device=pool.frames.device)
    for start in range(0, len(pool.frames), batch):
        index = torch.arange(start, min(start + batch, len(pool.frames)), device=total.device)
        found = losses_of(model, pool.frames[index], *pool.targets(index), autocast=autocast)
        total += found * len(index)
    return dict(zip(NAMES, (total / len(pool.frames)).tolist(), strict=True))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, rate=5e-4, first_seed=800_000_000)
    parser.add_argument("--pool", type=int, default=32768, help="most clips a process")
    parser.add_argument("--pool-seconds", type=float, default=120.0)
    parser.add_argument("--batch", type=int, default=32, help="clips a process")
    parser.add_argument("--subsets", type=float, default=0.2, help="share of steps on fewer frames")
    parser.add_argument("--compile", action="store_true", help="compile the step on five frames")
    arguments = parser.parse_args()

    began = time.monotonic()
    worker = parallel.join()
    on_gpu = worker.device.startswith("cuda")
    torch.manual_seed(1234)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    model = VGGT(VGGTConfig(**VGGT_CONFIG)).to(worker.device)
    earlier = None
    if arguments.resume:
        tensors, earlier = load_checkpoint(arguments.resume, "vggt")
        model.load_state_dict(tensors)
    renderer = Renderer(worker.device, workers=8 if on_gpu else 0)
    first = arguments.first_seed + worker.rank * arguments.pool
    pool = make_views(
        renderer,
        split_seeds("train", arguments.pool, start=first),
        batch=arguments.render_batch,
        seconds=arguments.pool_seconds,
    )
    # From 2,000 on: the probes' validation clips come before.
    validation = split_seeds("validation", arguments.held_out, start=2000)
    held_out = make_views(renderer, validation, batch=arguments.render_batch)
    renderer.close()
    mine = torch.tensor([len(pool.frames)], device=worker.device)
    counts = parallel.gather_first(mine, worker).tolist()
    starts = [arguments.first_seed + rank * arguments.pool for rank in range(worker.count)]
    if worker.leads:
        print(f"pool {sum(counts)} in all in {time.monotonic() - began:.0f} s", flush=True)

    whole: Callable[..., Tensor] = losses_of
    index = torch.arange(len(pool.frames), device=worker.device)[: arguments.batch]
    if arguments.compile:
        whole = torch.compile(losses_of, dynamic=False)
        if len(index) == arguments.batch:  # compiles before the clock starts
            whole(model, pool.frames[index], *pool.targets(index), autocast=on_gpu)[0].backward()
        parallel.wait(worker)
    training = Training(
        model,
        "vggt",
        arguments,
        worker,
        began=began,
        facts={"model": "toy-vggt", "config": VGGT_CONFIG},
        clip=f"{len(SLOT_FRAMES)} frames",
        spans=lambda: {f"{HEIGHT}x{WIDTH}": spans_of(starts, counts)},
        earlier=earlier,
    )
    generator = torch.Generator().manual_seed(7919 * worker.rank + arguments.first_seed)

    def step(progress: float) -> tuple[Losses, int, dict[str, Any]]:
        slots = draw_slots(generator, arguments.subsets)
        index = torch.randint(len(pool.frames), (arguments.batch,), generator=generator)
        index = index.to(worker.device)
        frames, targets = pool.frames[index], pool.targets(index, slots)
        if slots is None:
            found = whole(model, frames, *targets, autocast=on_gpu)
        else:
            found = losses_of(model, frames[:, slots], *targets, autocast=on_gpu)
        return dict(zip(NAMES, found, strict=True)), arguments.batch, {}

    training.run(step)
    if worker.leads:
        results = validate(model, held_out, batch=arguments.batch, autocast=on_gpu)
        training.finish({"validation": results})
    parallel.leave(worker)


if __name__ == "__main__":
    main()
