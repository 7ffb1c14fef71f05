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
    TEXT_DIM,
    VARIANTS,
    WIDTH,
    Variant,
)
from explorer.toy.latent_pools import Pools
from explorer.toy.latents import fingerprint, latent_pool, load_vae, one_frame
from explorer.toy.pool import Renderer
from explorer.toy.shards import load_checkpoint
from explorer.toy.train_slice import Losses, Training, add_options
from explorer.toy.widen import widen_transformer

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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, rate=1e-3, first_seed=10_000_000)
    parser.add_argument("--model", choices=list(VARIANTS), default="toy-wan")
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument(
        "--start-from", type=Path,
        help="run on another VAE's latents, also of fewer channels, to begin with its weights",
    )  # fmt: skip
    parser.add_argument("--clips", type=int, help="exactly so many different clips, in all")
    parser.add_argument(
        "--pool-seconds", type=float, default=60.0,
        help="without --clips, both sizes; after the first batch of each, which compiles",
    )  # fmt: skip
    parser.add_argument(
        "--large-share", type=float, default=0.35,
        help="of the training time at 144x256; at 1 no other clips are rendered",
    )  # fmt: skip
    parser.add_argument("--pool", type=int, default=65536, help="most clips a process and size")
    parser.add_argument(
        "--fresh", type=float, default=0.0,
        help="clips of the pool that make room for new ones, for each clip trained on",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=128, help="a process, at 96x160")
    parser.add_argument("--large-batch", type=int, default=48, help="a process, at 144x256")
    arguments = parser.parse_args()
    variant = VARIANTS[arguments.model]
    if arguments.clips and arguments.fresh:
        parser.error("--clips are exactly so many; --fresh adds others: give one of the two")
    if arguments.start_from and arguments.resume:
        parser.error("--resume goes on with a run, --start-from begins another: give one")
    if variant.share < 1.0 and not arguments.clips:
        parser.error(f"{variant.name} needs --clips: {variant.share:g} of the full run's clips")

    began = time.monotonic()
    worker = parallel.join()
    on_gpu = worker.device.startswith("cuda")
    torch.manual_seed(1234)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True  # for the VAE, whose clips have few shapes
    model = WanTransformer3DModel(**variant.config).to(worker.device)
    vae = load_vae(arguments.vae, worker.device)
    of_vae = fingerprint(vae.state_dict())
    earlier = None
    if arguments.resume:
        tensors, earlier = load_checkpoint(arguments.resume, "transformer")
        check_resumed(earlier, variant, of_vae)
        model.load_state_dict(tensors)
    facts: dict[str, Any] = {"model": variant.name, "config": variant.config, "vae": of_vae}
    if arguments.start_from:
        facts["started_from"] = start_from(arguments.start_from, model, variant)
    renderer = Renderer(worker.device, workers=8 if on_gpu else 0)
    pools = Pools(arguments, renderer, vae, variant, worker)
    held_out = latent_pool(
        renderer, vae, split_seeds("validation", arguments.held_out),
        batch=arguments.render_batch, height=HEIGHT, width=WIDTH,
        frames=one_frame if variant.frames_alone else None,
    )  # fmt: skip
    if not arguments.fresh:
        renderer.close()
    if worker.leads:
        print(f"pool {pools.spans()} in {time.monotonic() - began:.0f} s", flush=True)
    if on_gpu:
        model.compile_repeated_blocks(fullgraph=True)
    training = Training(
        model,
        "transformer",
        arguments,
        worker,
        began=began,
        facts=facts,
        clip="single frames" if variant.frames_alone else f"{FRAMES} frames",
        spans=pools.spans,
        earlier=earlier,
    )
    generator = torch.Generator(device=worker.device).manual_seed(7919 * worker.rank + 17)

    def drawn(progress: float) -> tuple[bool, int]:
        """Whether a step is at full size, and how many clips or frames it sees."""
        at_large = progress >= 1.0 - arguments.large_share
        batch = arguments.large_batch if at_large else arguments.batch
        return at_large, batch * (SLOTS if variant.frames_alone else 1)  # as many tokens as clips

    def step(progress: float) -> tuple[Losses, int, dict[str, Any]]:
        at_large, batch = drawn(progress)
        pool = pools.pick(large=at_large)
        index = torch.randint(len(pool), (batch,), generator=generator, device=worker.device)
        latents = pool.latents[index].float()
        sigma = sample_sigma(batch, generator, worker.device)
        noise = torch.randn(latents.shape, generator=generator, device=worker.device)
        loss = flow_loss(model, latents, sigma, noise, autocast=on_gpu).mean()
        return {"loss": loss}, batch, {"height": HEIGHT if at_large else SMALL_HEIGHT}

    def renew(progress: float) -> None:
        at_large, batch = drawn(progress)
        pools.renew(large=at_large, clips=arguments.fresh * batch)

    training.run(step, after=renew)
    renderer.close()
    if worker.leads:
        losses = validation_losses(model, held_out, autocast=on_gpu)
        training.finish({"validation": losses, "fresh_seconds": round(pools.seconds, 1)})
    parallel.leave(worker)


def start_from(run: Path, model: WanTransformer3DModel, variant: Variant) -> dict[str, Any]:
    """Load the weights of a run on another VAE's latents; what that run was, for the card.

    Raises:
        ValueError: the run trained another model.
    """
    tensors, card = load_checkpoint(run, "transformer")
    if card.get("model", "toy-wan") != variant.name:
        raise ValueError(f"that run trained {card['model']}, not {variant.name}")
    model.load_state_dict(widen_transformer(tensors, variant.config["in_channels"]))
    return {key: card[key] for key in ("data", "world", "steps", "train_seconds") if key in card}


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
