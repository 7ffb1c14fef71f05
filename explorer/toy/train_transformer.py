r"""Train toy-wan's transformer, or a variant of it, on VAE latents of rendered clips.

    torchrun --nproc_per_node=2 -m explorer.toy.train_transformer \
        --vae runs/vae --out runs/transformer --model toy-wan

Flow matching: x_t = (1 - sigma) x_0 + sigma eps, target eps - x_0 (Lipman et al. 2023), sigma from
a logit-normal (Esser et al. 2024). Most steps at 96x160, the last part at 144x256; EMA weights;
resumes. `explorer.toy.config.VARIANTS` lists the models.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor

from explorer.data.world.splits import split_seeds
from explorer.toy import parallel
from explorer.toy.config import (
    FRAMES,
    HEIGHT,
    SMALL_HEIGHT,
    SMALL_WIDTH,
    TEXT_DIM,
    VARIANTS,
    WIDTH,
    Variant,
)
from explorer.toy.latents import fingerprint, latent_pool, load_vae, one_frame
from explorer.toy.pool import Renderer
from explorer.toy.shards import load_checkpoint
from explorer.toy.train_slice import Losses, Training, add_options, spans_of

LARGE_CLIPS = 0.25  # of --clips, rendered at 144x256
SLOTS = 1 + (FRAMES - 1) // 4


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


@dataclass(frozen=True)
class Pools:
    """Latents of one process, and the positions in the training range that all processes' are of.

    Attributes:
        small, large: (N, 8, S, h, w) at 96x160 and 144x256.
        spans: see `spans_of`.
        counts: clips of all processes, small and large.
    """

    small: Tensor
    large: Tensor
    spans: list[list[int]]
    counts: tuple[int, int]


def split_clips(clips: int, worker: parallel.Worker) -> tuple[int, int]:
    """How many of `clips` different clips this process renders small and large: all together
    exactly `clips`, the same ones for fewer as the first of more.

    Raises:
        ValueError: a process would have none of a size.
    """
    large = max(round(clips * LARGE_CLIPS), worker.count)
    small = clips - large
    if small < worker.count:
        raise ValueError(f"{clips} clips are too few for {worker.count} processes")

    def mine(count: int) -> int:
        return count // worker.count + (worker.rank < count % worker.count)

    return mine(small), mine(large)


def make_pools(
    arguments: argparse.Namespace,
    renderer: Renderer,
    vae: AutoencoderKLWan,
    variant: Variant,
    worker: parallel.Worker,
) -> Pools:
    """Render and encode: exactly `--clips` clips, or as many as `--pool-seconds` allow."""
    limits, share = (arguments.pool, arguments.pool), None
    if arguments.clips:
        limits = split_clips(arguments.clips, worker)
        if max(limits) > arguments.pool:
            raise ValueError(f"--pool {arguments.pool} is less than this process's {limits}")
    else:
        share = arguments.pool_seconds * max(0.4, arguments.large_share)
    first = arguments.first_seed + worker.rank * 2 * arguments.pool
    frames = one_frame if variant.frames_alone else None
    # Single frames take a seventeenth of the memory, and larger batches render faster.
    batch = arguments.render_batch * (8 if variant.frames_alone else 1)
    large = latent_pool(
        renderer, vae, split_seeds("train", limits[1], start=first),
        batch=batch, height=HEIGHT, width=WIDTH, seconds=share, frames=frames,
    )  # fmt: skip
    small = latent_pool(
        renderer, vae, split_seeds("train", limits[0], start=first + arguments.pool),
        batch=batch, height=SMALL_HEIGHT, width=SMALL_WIDTH,
        seconds=None if share is None else arguments.pool_seconds - share, frames=frames,
    )  # fmt: skip
    mine = torch.tensor([len(large), len(small)], device=worker.device)
    counts = parallel.gather_first(mine, worker).tolist()
    starts = [arguments.first_seed + k * arguments.pool for k in range(2 * worker.count)]
    return Pools(
        small, large, spans_of(starts, counts), (int(sum(counts[1::2])), int(sum(counts[::2])))
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, rate=1e-3, first_seed=10_000_000)
    parser.add_argument("--model", choices=list(VARIANTS), default="toy-wan")
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--clips", type=int, help="exactly so many different clips, in all")
    parser.add_argument("--pool-seconds", type=float, default=60.0, help="without --clips")
    parser.add_argument("--large-share", type=float, default=0.35, help="of the training time")
    parser.add_argument("--pool", type=int, default=65536, help="most clips a process and size")
    parser.add_argument("--batch", type=int, default=128, help="a process, at 96x160")
    parser.add_argument("--large-batch", type=int, default=48, help="a process, at 144x256")
    arguments = parser.parse_args()
    variant = VARIANTS[arguments.model]
    if variant.share < 1.0 and not arguments.clips:
        parser.error(f"{variant.name} needs --clips: {variant.share:g} of the full run's clips")

    began = time.monotonic()
    worker = parallel.join()
    on_gpu = worker.device.startswith("cuda")
    torch.manual_seed(1234)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    model = WanTransformer3DModel(**variant.config).to(worker.device)
    vae = load_vae(arguments.vae, worker.device)
    of_vae = fingerprint(vae.state_dict())
    earlier = None
    if arguments.resume:
        tensors, earlier = load_checkpoint(arguments.resume, "transformer")
        check_resumed(earlier, variant, of_vae)
        model.load_state_dict(tensors)
    renderer = Renderer(worker.device, workers=8 if on_gpu else 0)
    pools = make_pools(arguments, renderer, vae, variant, worker)
    held_out = latent_pool(
        renderer, vae, split_seeds("validation", arguments.held_out),
        batch=arguments.render_batch, height=HEIGHT, width=WIDTH,
        frames=one_frame if variant.frames_alone else None,
    )  # fmt: skip
    renderer.close()
    small, large = pools.counts
    if worker.leads:
        spent = time.monotonic() - began
        print(f"pool {small} small, {large} large in all in {spent:.0f} s", flush=True)
    if on_gpu:
        model.compile_repeated_blocks(fullgraph=True)
    per_clip = "single frames" if variant.frames_alone else f"{FRAMES} frames"
    training = Training(
        model,
        "transformer",
        arguments,
        worker,
        began=began,
        facts={
            "model": variant.name,
            "config": variant.config,
            "vae": of_vae,
            "data": f"procedural world, train seeds from {arguments.first_seed}, {per_clip}: "
            f"{small} clips at {SMALL_HEIGHT}x{SMALL_WIDTH}, {large} at {HEIGHT}x{WIDTH}",
        },
        spans=pools.spans,
        earlier=earlier,
    )
    generator = torch.Generator(device=worker.device).manual_seed(7919 * worker.rank + 17)

    def step(progress: float) -> tuple[Losses, int, dict[str, Any]]:
        at_large = progress >= 1.0 - arguments.large_share
        pool = pools.large if at_large else pools.small
        batch = arguments.large_batch if at_large else arguments.batch
        batch *= SLOTS if variant.frames_alone else 1  # as many tokens as in clips
        index = torch.randint(len(pool), (batch,), generator=generator, device=worker.device)
        latents = pool[index].float()
        sigma = sample_sigma(batch, generator, worker.device)
        noise = torch.randn(latents.shape, generator=generator, device=worker.device)
        loss = flow_loss(model, latents, sigma, noise, autocast=on_gpu).mean()
        return {"loss": loss}, batch, {"height": HEIGHT if at_large else SMALL_HEIGHT}

    training.run(step)
    if worker.leads:
        training.finish({"validation": validation_losses(model, held_out, autocast=on_gpu)})
    parallel.leave(worker)


def check_resumed(card: dict[str, Any], variant: Variant, of_vae: str) -> None:
    """Refuse to go on with another model, or on latents of another VAE.

    Raises:
        ValueError: with what the run was.
    """
    found = card.get("model", "toy-wan")
    if found != variant.name:
        raise ValueError(f"that run trained {found}, not {variant.name}: give --model {found}")
    if card.get("vae", of_vae) != of_vae:
        raise ValueError("that run was trained on the latents of another VAE: give its --vae")


if __name__ == "__main__":
    main()
