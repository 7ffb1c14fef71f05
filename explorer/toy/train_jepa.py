"""Train toy-jepa, a video encoder that predicts masked features over time.

    torchrun --nproc_per_node=2 -m explorer.toy.train_jepa --out runs/jepa --compile

The objective is `explorer.toy.jepa`; clips are pixels, most steps at 96x160, the last part at
144x256, as for toy-wan; EMA weights; resumes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from explorer.backbones._toy_jepa import to_boxes
from explorer.data.world.splits import split_seeds
from explorer.nets.vjepa import VideoViTConfig
from explorer.toy import parallel
from explorer.toy.config import FRAMES, HEIGHT, JEPA_CONFIG, SMALL_HEIGHT, SMALL_WIDTH, WIDTH
from explorer.toy.jepa import Jepa, draw_masks, jepa_losses
from explorer.toy.pool import Renderer, image_pool
from explorer.toy.shards import load_checkpoint
from explorer.toy.train_slice import Losses, Training, add_options, spans_of

MOMENTUM = 0.998  # of the target encoder; rises to 1 over the slice


@torch.no_grad()
def validate(model: Jepa, images: Tensor, *, batch: int, autocast: bool) -> dict[str, float]:
    """Mean loss and spread on held-out clips with fixed masks."""
    generator, total = torch.Generator().manual_seed(0), torch.zeros(2, device=images.device)
    for start in range(0, len(images), batch):
        video = to_boxes(images[start : start + batch])
        masks = draw_masks(len(video), model.encoder.grid(*video.shape[2:]), generator)
        kept, masked = (each.to(images.device) for each in masks)
        total += jepa_losses(model, video, kept, masked, autocast=autocast) * len(video)
    loss, spread = (total / len(images)).tolist()
    return {"loss": loss, "spread": spread}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, rate=6e-4, first_seed=900_000_000)
    parser.add_argument("--pool", type=int, default=8192, help="most clips a process and size")
    parser.add_argument("--pool-seconds", type=float, default=90.0)
    parser.add_argument("--large-share", type=float, default=0.3, help="of the training time")
    parser.add_argument("--batch", type=int, default=64, help="a process, at 96x160")
    parser.add_argument("--large-batch", type=int, default=24, help="a process, at 144x256")
    parser.add_argument("--compile", action="store_true", help="compile the loss")
    arguments = parser.parse_args()

    began = time.monotonic()
    worker = parallel.join()
    on_gpu = worker.device.startswith("cuda")
    torch.manual_seed(1234)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    model = Jepa(VideoViTConfig(**JEPA_CONFIG)).to(worker.device)
    earlier = None
    if arguments.resume:
        tensors, earlier = load_checkpoint(arguments.resume, "jepa")
        model.load_state_dict(tensors)
    renderer = Renderer(worker.device, workers=8 if on_gpu else 0)
    first = arguments.first_seed + worker.rank * 2 * arguments.pool
    share = 0.6 * arguments.pool_seconds
    large = image_pool(
        renderer, split_seeds("train", arguments.pool, start=first),
        batch=arguments.render_batch, height=HEIGHT, width=WIDTH, seconds=share,
    )  # fmt: skip
    small = image_pool(
        renderer, split_seeds("train", arguments.pool, start=first + arguments.pool),
        batch=arguments.render_batch, height=SMALL_HEIGHT, width=SMALL_WIDTH,
        seconds=arguments.pool_seconds - share,
    )  # fmt: skip
    held_out = image_pool(
        renderer, split_seeds("validation", arguments.held_out),
        batch=arguments.render_batch, height=HEIGHT, width=WIDTH,
    )  # fmt: skip
    renderer.close()
    mine = torch.tensor([len(large), len(small)], device=worker.device)
    counts = parallel.gather_first(mine, worker).tolist()
    starts = [arguments.first_seed + k * arguments.pool for k in range(2 * worker.count)]
    if worker.leads:
        print(f"pool {sum(counts)} in all in {time.monotonic() - began:.0f} s", flush=True)

    objective: Callable[..., Tensor] = jepa_losses
    if arguments.compile:
        objective = torch.compile(jepa_losses, dynamic=False)
    generator = torch.Generator().manual_seed(7919 * worker.rank + arguments.first_seed)

    def losses_on(pool: Tensor, batch: int) -> Tensor:
        index = torch.randint(len(pool), (batch,), generator=generator).to(worker.device)
        video = to_boxes(pool[index])
        masks = draw_masks(batch, model.encoder.grid(*video.shape[2:]), generator)
        kept, masked = (each.to(worker.device) for each in masks)
        return objective(model, video, kept, masked, autocast=on_gpu)

    if arguments.compile:  # both sizes, before the clock starts
        losses_on(small, arguments.batch)[0].backward()
        losses_on(large, arguments.large_batch)[0].backward()
        parallel.wait(worker)
    training = Training(
        model,
        "jepa",
        arguments,
        worker,
        began=began,
        facts={"model": "toy-jepa", "config": JEPA_CONFIG},
        clip=f"{FRAMES} frames",
        spans=lambda: {
            f"{HEIGHT}x{WIDTH}": spans_of(starts[::2], counts[::2]),
            f"{SMALL_HEIGHT}x{SMALL_WIDTH}": spans_of(starts[1::2], counts[1::2]),
        },
        earlier=earlier,
    )

    def step(progress: float) -> tuple[Losses, int, dict[str, Any]]:
        at_large = progress >= 1.0 - arguments.large_share
        pool, batch = (large, arguments.large_batch) if at_large else (small, arguments.batch)
        loss, spread = losses_on(pool, batch)
        notes = {"height": HEIGHT if at_large else SMALL_HEIGHT}
        return {"loss": loss, "spread": spread}, batch, notes

    def follow(progress: float) -> None:
        model.follow(MOMENTUM + (1.0 - MOMENTUM) * min(progress, 1.0))

    training.run(step, after=follow)
    if worker.leads:
        results = validate(model, held_out, batch=arguments.large_batch, autocast=on_gpu)
        training.finish({"validation": results})
    parallel.leave(worker)


if __name__ == "__main__":
    main()
