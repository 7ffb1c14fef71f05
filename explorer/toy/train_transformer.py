r"""Train toy-wan's transformer on VAE latents of rendered clips, by flow matching.

    torchrun --nproc_per_node=2 -m explorer.toy.train_transformer \
        --vae runs/vae --out runs/transformer

x_t = (1 - sigma) x_0 + sigma eps, target eps - x_0 (Lipman et al. 2023), sigma from a logit-normal
(Esser et al. 2024). Most steps at 96x160, the last part at 144x256; EMA weights; resumes.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from explorer.data.world.splits import split_seeds
from explorer.toy import parallel
from explorer.toy.config import (
    FRAMES,
    HEIGHT,
    SMALL_HEIGHT,
    SMALL_WIDTH,
    TEXT_DIM,
    TRANSFORMER_CONFIG,
    WIDTH,
)
from explorer.toy.latents import latent_pool, load_vae
from explorer.toy.pool import Renderer
from explorer.toy.schedule import Clock, Every
from explorer.toy.shards import Average, load_checkpoint, save_shards


def sample_sigma(count: int, generator: torch.Generator, device: str) -> Tensor:
    """Noise levels: logit-normal; one in ten uniform, so that the ends are seen too."""
    normal = torch.sigmoid(torch.randn(count, generator=generator, device=device))
    uniform = torch.rand(count, generator=generator, device=device)
    choose = torch.rand(count, generator=generator, device=device) < 0.1
    return torch.where(choose, uniform, normal)


def flow_loss(
    model: torch.nn.Module, latents: Tensor, sigma: Tensor, noise: Tensor, *, autocast: bool
) -> Tensor:
    """Mean squared error (B,) of the predicted velocity of each clip."""
    shape = (-1, 1, 1, 1, 1)
    noisy = (1 - sigma.view(shape)) * latents + sigma.view(shape) * noise
    prompt = torch.zeros(len(latents), 1, TEXT_DIM, device=latents.device)
    with torch.autocast(latents.device.type, dtype=torch.bfloat16, enabled=autocast):
        velocity = model(noisy, sigma * 1000.0, prompt, return_dict=False)[0]
    return ((velocity.float() - (noise - latents)) ** 2).mean(dim=(1, 2, 3, 4))


@torch.no_grad()
def validation_losses(
    model: torch.nn.Module, latents: Tensor, *, autocast: bool
) -> dict[str, float]:
    """Mean loss on held-out clips at fixed noise levels with fixed noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    losses = {}
    for level in (0.1, 0.3, 0.5, 0.7, 0.9):
        sigma = torch.full((len(latents),), level, device=latents.device)
        loss = flow_loss(model, latents.float(), sigma, noise, autocast=autocast)
        losses[f"sigma_{level}"] = float(loss.mean())
    return losses


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=500.0, help="in all, the pool included")
    parser.add_argument("--pool-seconds", type=float, default=60.0)
    parser.add_argument("--large-share", type=float, default=0.35, help="of the training time")
    parser.add_argument("--pool", type=int, default=65536, help="most clips a process")
    parser.add_argument("--held-out", type=int, default=64)
    parser.add_argument("--first-seed", type=int, default=10_000_000)
    parser.add_argument("--batch", type=int, default=128, help="a process, at 96x160")
    parser.add_argument("--large-batch", type=int, default=48, help="a process, at 144x256")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--render-batch", type=int, default=16)
    parser.add_argument("--save-seconds", type=float, default=60.0, help="between checkpoints")
    parser.add_argument("--resume", type=Path)
    arguments = parser.parse_args()

    began = time.monotonic()
    worker = parallel.join()
    on_gpu = worker.device.startswith("cuda")
    torch.manual_seed(1234)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    vae = load_vae(arguments.vae, worker.device)
    renderer = Renderer(worker.device, workers=8 if on_gpu else 0)
    first = arguments.first_seed + worker.rank * 2 * arguments.pool
    share = arguments.pool_seconds * max(0.4, arguments.large_share)
    large = latent_pool(
        renderer, vae, split_seeds("train", arguments.pool, start=first),
        batch=arguments.render_batch, height=HEIGHT, width=WIDTH, seconds=share,
    )  # fmt: skip
    small = latent_pool(
        renderer, vae, split_seeds("train", arguments.pool, start=first + arguments.pool),
        batch=arguments.render_batch, height=SMALL_HEIGHT, width=SMALL_WIDTH,
        seconds=arguments.pool_seconds - share,
    )  # fmt: skip
    held_out = latent_pool(
        renderer, vae, split_seeds("validation", arguments.held_out),
        batch=arguments.render_batch, height=HEIGHT, width=WIDTH, seconds=60.0,
    )  # fmt: skip
    renderer.close()
    pool_seconds = time.monotonic() - began
    if worker.leads:
        print(f"pool {len(small)} small, {len(large)} large in {pool_seconds:.0f} s", flush=True)

    model = WanTransformer3DModel(**TRANSFORMER_CONFIG).to(worker.device)
    history: list[dict[str, float]] = []
    earlier: dict[str, float] = {"steps": 0, "clips": 0, "train_seconds": 0.0}
    if arguments.resume:
        tensors, card = load_checkpoint(arguments.resume, "transformer")
        model.load_state_dict(tensors)
        history, earlier = card["history"], card
    average = Average(model, 0.999)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=arguments.rate, betas=(0.9, 0.95), weight_decay=0.01, fused=on_gpu
    )
    if on_gpu:
        model.compile_repeated_blocks(fullgraph=True)
    left = max(arguments.seconds - (time.monotonic() - began) - 15.0, 5.0)
    clock = Clock(left, peak=arguments.rate, floor=1e-5, warmup=300, worker=worker)
    generator = torch.Generator(device=worker.device).manual_seed(7919 * worker.rank + 17)
    running = torch.zeros(2, device=worker.device)
    clips = 0

    def describe() -> dict[str, Any]:
        return {
            "data": f"procedural world, train seeds from {arguments.first_seed}, {FRAMES} frames: "
            f"{len(small) * worker.count} clips at {SMALL_HEIGHT}x{SMALL_WIDTH}, "
            f"{len(large) * worker.count} at {HEIGHT}x{WIDTH}",
            "steps": int(earlier["steps"]) + clock.step,
            "clips": int(earlier["clips"]) + clips,
            "train_seconds": round(float(earlier["train_seconds"]) + clock.elapsed, 1),
            "pool_seconds": round(pool_seconds, 1),
            "gpus": worker.count if on_gpu else 0,
            "history": history,
        }

    save = Every(arguments.save_seconds)
    while True:
        for group in optimizer.param_groups:
            group["lr"] = clock.rate()
        at_large = clock.progress >= 1.0 - arguments.large_share
        pool, batch = (large, arguments.large_batch) if at_large else (small, arguments.batch)
        index = torch.randint(len(pool), (batch,), generator=generator, device=worker.device)
        latents = pool[index].float()
        sigma = sample_sigma(batch, generator, worker.device)
        noise = torch.randn(latents.shape, generator=generator, device=worker.device)
        loss = flow_loss(model, latents, sigma, noise, autocast=on_gpu).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parallel.average_gradients(model.parameters(), worker)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update()
        clips += batch * worker.count
        running += torch.stack([loss.detach(), torch.ones_like(loss)])
        more = clock.advance()
        if clock.step % 200 == 0 or not more:
            mean = float(running[0] / running[1])
            running.zero_()
            history.append(
                {
                    "step": int(earlier["steps"]) + clock.step,
                    "seconds": round(clock.elapsed, 1),
                    "loss": mean,
                    "height": HEIGHT if at_large else SMALL_HEIGHT,
                }
            )
            if worker.leads:
                print(json.dumps(history[-1]), flush=True)
        if not more:
            break
        if worker.leads and save.due():
            save_shards(average.values, arguments.out, "transformer", describe())

    average.copy_to(model)
    if worker.leads:
        card = describe()
        card["validation"] = validation_losses(model, held_out, autocast=on_gpu)
        save_shards(average.values, arguments.out, "transformer", card)
        print(json.dumps({k: v for k, v in card.items() if k != "history"}), flush=True)
    parallel.leave(worker)


if __name__ == "__main__":
    main()
