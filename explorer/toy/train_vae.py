"""Train toy-wan's video VAE on rendered clips.

    torchrun --nproc_per_node=2 -m explorer.toy.train_vae --out runs/vae --seconds 520

Loss: L1 + L1 of gradients + squared error + a small KL (Kingma and Welling 2014); EMA weights;
resumes from --resume, also from a VAE of fewer latent channels. Clips pass the network whole
(`explorer.toy.whole`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from explorer.data.world.spec import WORLD_VERSION
from explorer.data.world.splits import split_seeds
from explorer.toy import parallel, whole
from explorer.toy.config import FRAMES, HEIGHT, SMALL_HEIGHT, SMALL_WIDTH, VAE_CONFIG, WIDTH
from explorer.toy.graphs import graphed
from explorer.toy.latents import STATISTICS
from explorer.toy.pool import Renderer, image_pool
from explorer.toy.schedule import Clock, Every
from explorer.toy.shards import Average, load_checkpoint, save_shards
from explorer.toy.widen import widen_vae

KL_WEIGHT = 1e-5
EDGE_WEIGHT = 0.5
SQUARE_WEIGHT = 2.0  # what the signal-to-noise ratio measures; L1 alone lets rare large errors be


def to_unit(images: Tensor) -> Tensor:
    """uint8 (B, T, H, W, 3) to float (B, 3, T, H, W) in [-1, 1]."""
    return images.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0


def latent_shape(clip: Tensor) -> tuple[int, ...]:
    """Shape (B, C, S, h, w) of the latents of clips (B, 3, T, H, W)."""
    batch, _, frames, height, width = clip.shape
    scale = VAE_CONFIG["scale_factor_spatial"]
    return batch, VAE_CONFIG["z_dim"], 1 + (frames - 1) // 4, height // scale, width // scale


def slot_weights(frames: int) -> Tensor:
    """(1, 1, T, 1, 1) weights of mean 1 that make every latent slot count the same.

    The first slot holds one frame, the others four; without this the first frame, which gives a
    clip its colours, would hardly be trained.
    """
    weights = torch.ones(frames)
    weights[0] = 4.0
    return (weights / weights.mean()).view(1, 1, -1, 1, 1)


def edge_loss(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean absolute difference of horizontal and vertical differences."""
    error = x - y
    across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    return 0.5 * ((across.abs() * weights).mean() + (down.abs() * weights).mean())


def losses_of(
    vae: Any,
    clip: Tensor,
    noise: Tensor,
    weights: Tensor,
    *,
    autocast: bool,
    square_weight: float = SQUARE_WEIGHT,
) -> Tensor:
    """(total, L1, gradients, squares, KL) of clips (B, 3, T, H, W); the VAE within `whole_clips`.

    `noise` has the shape of the clips' latents; `weights` come from `slot_weights`.
    """
    with torch.autocast(
        clip.device.type, dtype=torch.bfloat16, enabled=autocast, cache_enabled=False
    ):
        mean, log_variance = whole.encode(vae, clip)
        sample = mean + torch.exp(0.5 * log_variance) * noise
        decoded = whole.decode(vae, sample).float()
    mean, log_variance = mean.float(), log_variance.float()
    kl = 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).mean()
    error = decoded - clip
    l1, squares = (error.abs() * weights).mean(), (error**2 * weights).mean()
    edges = edge_loss(decoded, clip, weights)
    total = l1 + EDGE_WEIGHT * edges + square_weight * squares + KL_WEIGHT * kl
    return torch.stack([total, l1, edges, squares, kl])


def crops(pools: list[Tensor], batch: int, generator: torch.Generator) -> Tensor:
    """Random crops (batch, 3, 17, 96, 160) from one of the pools, some of them mirrored.

    Clips keep their full length: trained on shorter ones, the causal decoder drifts beyond it.
    """
    pool = pools[int(torch.randint(len(pools), (1,), generator=generator))]
    count, _, height, width = pool.shape[:4]
    index = torch.randint(count, (batch,), generator=generator)
    y = int(torch.randint(height - SMALL_HEIGHT + 1, (1,), generator=generator))
    x = int(torch.randint(width - SMALL_WIDTH + 1, (1,), generator=generator))
    window = pool[:, :, y : y + SMALL_HEIGHT, x : x + SMALL_WIDTH]
    clip = to_unit(window[index.to(pool.device)])
    return clip.flip(-1) if torch.rand(1, generator=generator) < 0.5 else clip


@torch.no_grad()
def psnr(vae: Any, images: Tensor, *, batch: int = 8) -> tuple[float, list[float]]:
    """(mean over clips, mean of each frame) of the peak signal-to-noise ratio in dB, peak 255."""
    clips: list[Tensor] = []
    for start in range(0, len(images), batch):
        clip = to_unit(images[start : start + batch])
        decoded = vae.decode(vae.encode(clip).latent_dist.mode()).sample.float()
        clips.append(((decoded - clip) ** 2).mean(dim=(1, 3, 4)) / 4.0)
    error = torch.cat(clips)
    of_clips, of_frames = error.mean(1), error
    return (
        float((-10 * torch.log10(of_clips)).mean()),
        (-10 * torch.log10(of_frames)).mean(0).tolist(),
    )


@torch.no_grad()
def latent_statistics(
    vae: Any, images: Tensor, *, batch: int = 8
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel over clips."""
    latents = [
        vae.encode(to_unit(images[start : start + batch])).latent_dist.mode().float()
        for start in range(0, len(images), batch)
    ]
    joined = torch.cat(latents).transpose(0, 1).flatten(1)
    return joined.mean(1).tolist(), joined.std(1).tolist()


def main() -> None:
    """Command line."""
    arguments = _arguments()
    began = time.monotonic()
    worker = parallel.join()
    torch.manual_seed(1234)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    vae = AutoencoderKLWan(**VAE_CONFIG).to(worker.device)
    history: list[dict[str, Any]] = []
    slices: list[dict[str, Any]] = []
    kept: dict[str, Any] = {}  # statistics that latents are normalised with
    if arguments.resume:
        tensors, earlier = load_checkpoint(arguments.resume, "vae")
        vae.load_state_dict(widen_vae(tensors, VAE_CONFIG["z_dim"]))
        history, slices = earlier["history"], earlier["slices"]
    if arguments.decoder_only:
        if arguments.resume:
            kept = {name: earlier[name] for name in STATISTICS if name in earlier}
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    on_gpu = worker.device.startswith("cuda")
    if on_gpu:
        for module in vae.modules():
            if isinstance(module, torch.nn.Conv3d):
                module.weight.data = module.weight.data.contiguous(
                    memory_format=torch.channels_last_3d
                )
    large, small, held_out = _pools(arguments, worker)
    pool_seconds = time.monotonic() - began
    if worker.leads:
        print(f"pool {len(large)}+{len(small)} clips a process in {pool_seconds:.0f} s", flush=True)

    average = Average(vae, 0.999)
    optimizer = torch.optim.AdamW(
        [p for p in vae.parameters() if p.requires_grad],
        lr=arguments.rate,
        betas=(0.9, 0.95),
        weight_decay=1e-3,
        fused=on_gpu,
    )
    generator = torch.Generator().manual_seed(7919 * worker.rank + arguments.first_seed)
    running = torch.zeros(4, device=worker.device)

    weights = slot_weights(FRAMES).to(worker.device)
    objective = torch.compile(losses_of, dynamic=False) if arguments.compile else losses_of

    def train_on(clip: Tensor, noise: Tensor) -> Tensor:
        losses: Tensor = objective(
            vae, clip, noise, weights, autocast=on_gpu, square_weight=arguments.square_weight
        )
        losses[0].backward()
        return losses.detach()

    def draw() -> tuple[Tensor, Tensor]:
        clip = crops([large, small], arguments.batch, generator)
        noise = torch.randn(latent_shape(clip), device=worker.device)
        if on_gpu:
            clip = clip.contiguous(memory_format=torch.channels_last_3d)
        return clip, noise

    example = draw()
    parameters = list(vae.parameters())
    training = contextlib.ExitStack()
    training.enter_context(whole.whole_clips(vae))
    step = graphed(train_on, example, parameters, enabled=arguments.graph and on_gpu)
    step(*example)  # compiles before the clock starts
    left = max(arguments.seconds - (time.monotonic() - began) - 20.0, 5.0)  # 20 s for the end
    clock = Clock(
        left,
        peak=arguments.rate,
        floor=1e-5,
        warmup=200,
        worker=worker,
        steps=arguments.steps,
        decay=arguments.decay,
    )
    if worker.leads:
        print(f"training starts after {time.monotonic() - began:.0f} s", flush=True)

    def describe() -> dict[str, Any]:
        now = {
            "world": WORLD_VERSION,
            "first_seed": arguments.first_seed,
            "clips": 2 * arguments.pool * worker.count,
            "steps": clock.step,
            "batch": arguments.batch * worker.count,
            "train_seconds": round(clock.elapsed, 1),
            "pool_seconds": round(pool_seconds, 1),
            "gpus": worker.count if on_gpu else 0,
            "square_weight": arguments.square_weight,
            "decoder_only": arguments.decoder_only,
        }
        return _card([*slices, now], history)

    save = Every(arguments.save_seconds)
    while True:
        for group in optimizer.param_groups:
            group["lr"] = clock.rate()
        losses = step(*draw())
        parallel.average_gradients(vae.parameters(), worker)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update()
        running += losses[1:]
        if not math.isfinite(clock.rate()):
            raise RuntimeError("the learning rate is not finite")
        more = clock.advance()
        if clock.step % 200 == 0 or not more:
            values = (running / (200 if clock.step % 200 == 0 else clock.step % 200)).tolist()
            running.zero_()
            done = sum(int(part["steps"]) for part in slices)
            progress = {"step": done + clock.step, "seconds": round(clock.elapsed, 1)}
            names = ("l1", "edges", "square", "kl")
            history.append({**progress, **dict(zip(names, values, strict=True))})
            if worker.leads:
                print(json.dumps(history[-1]), flush=True)
        if not more:
            break
        if worker.leads and save.due():
            save_shards(average.values, arguments.out, "vae", describe())

    training.close()
    average.copy_to(vae)
    vae.eval()
    quality, of_frames = psnr(vae, held_out)
    if worker.leads:
        card = describe()
        card |= kept or dict(zip(STATISTICS, latent_statistics(vae, large[:128]), strict=True))
        card |= {"psnr_db": quality, "psnr_db_of_frames": [round(value, 2) for value in of_frames]}
        save_shards(average.values, arguments.out, "vae", card)
        print(json.dumps({k: v for k, v in card.items() if k != "history"}), flush=True)
    parallel.leave(worker)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=520.0, help="in all, the pool included")
    parser.add_argument("--steps", type=int, help="of this slice at most; else time alone ends it")
    parser.add_argument("--pool", type=int, default=4096, help="clips a process and a size")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16, help="a process")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument(
        "--decay",
        type=float,
        default=1.0,
        help="last share of the slice in which the rate falls; 0 where another slice follows",
    )
    parser.add_argument("--render-batch", type=int, default=16)
    parser.add_argument("--held-out", type=int, default=64, help="validation clips for the PSNR")
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--save-seconds", type=float, default=60.0, help="between checkpoints")
    parser.add_argument("--compile", action="store_true", help="compile encoder and decoder")
    parser.add_argument(
        "--square-weight", type=float, default=SQUARE_WEIGHT, help="of the squared error"
    )
    parser.add_argument(
        "--decoder-only",
        action="store_true",
        help="keep the encoder, and with it all latents: transformers of the VAE stay right",
    )
    parser.add_argument("--graph", action="store_true", help="replay the step as a CUDA graph")
    return parser.parse_args()


def _pools(arguments: argparse.Namespace, worker: parallel.Worker) -> tuple[Tensor, Tensor, Tensor]:
    """Clips of this process to train on, large and small, and those of validation."""
    renderer = Renderer(worker.device, workers=6 if worker.device.startswith("cuda") else 0)
    first = arguments.first_seed + worker.rank * arguments.pool * 2
    half = arguments.render_batch
    large = image_pool(
        renderer, split_seeds("train", arguments.pool, start=first),
        batch=half, height=HEIGHT, width=WIDTH,
    )  # fmt: skip
    small = image_pool(
        renderer, split_seeds("train", arguments.pool, start=first + arguments.pool),
        batch=half, height=SMALL_HEIGHT, width=SMALL_WIDTH,
    )  # fmt: skip
    held_out = image_pool(
        renderer,
        split_seeds("validation", arguments.held_out),
        batch=half,
        height=HEIGHT,
        width=WIDTH,
    )
    renderer.close()
    return large, small, held_out


def _card(slices: list[dict[str, Any]], history: list[dict[str, Any]]) -> dict[str, Any]:
    """What is written beside the weights of all slices so far."""
    return {
        "data": f"procedural world, {sum(part['clips'] for part in slices)} train clips of "
        f"{FRAMES} frames",
        "world": WORLD_VERSION,
        "steps": sum(part["steps"] for part in slices),
        "train_seconds": round(sum(part["train_seconds"] for part in slices), 1),
        "slices": slices,
        "history": history,
    }


if __name__ == "__main__":
    main()
