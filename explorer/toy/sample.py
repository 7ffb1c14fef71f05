r"""Sample videos of toy-wan, or of a variant, and lay them out as a contact sheet.

    python -m explorer.toy.sample --vae runs/vae --transformer runs/transformer --out runs/samples

Euler steps of diffusers' flow-matching scheduler from noise, with the empty prompt, as in
`WanPipeline` without guidance. Above the samples are rendered validation clips and what the VAE
makes of them. Writes `samples.png` and, with `--videos`, all frames in `samples.safetensors`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from safetensors.torch import save
from torch import Tensor

from explorer._atomic import replace_file
from explorer.data.world.splits import split_seeds
from explorer.toy.config import FLOW_SHIFT, FRAMES, HEIGHT, TEXT_DIM, VARIANTS, WIDTH
from explorer.toy.latents import load_vae
from explorer.toy.png import png, sheet
from explorer.toy.pool import Renderer, image_pool
from explorer.toy.shards import load_checkpoint


@torch.no_grad()
def sample_latents(
    transformer: Any, shape: tuple[int, ...], *, steps: int, seed: int, shift: float = FLOW_SHIFT
) -> Tensor:
    """Normalised latents (B, C, S, h, w) from noise.

    Args:
        transformer: predicts the velocity; on its device.
        shape: of the latents.
        steps: of the scheduler.
        seed: of the noise, made on the CPU so that every machine starts from the same.
        shift: of the scheduler's noise levels.
    """
    device = next(transformer.parameters()).device
    scheduler: Any = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
    scheduler.set_timesteps(steps, device=device)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
    prompt = torch.zeros(shape[0], 1, TEXT_DIM, device=device)
    for timestep in scheduler.timesteps:
        velocity = transformer(
            latents, timestep.expand(shape[0]).float(), prompt, return_dict=False
        )[0]
        latents = scheduler.step(velocity.float(), timestep, latents, return_dict=False)[0]
    return latents


@torch.no_grad()
def pictures(vae: Any, latents: Tensor) -> Tensor:
    """uint8 frames (B, T, H, W, 3) on the CPU of normalised latents (B, C, S, h, w)."""
    shape = (1, -1, 1, 1, 1)
    center = torch.tensor(vae.config.latents_mean, device=latents.device).view(shape)
    spread = torch.tensor(vae.config.latents_std, device=latents.device).view(shape)
    clips = [vae.decode(each[None]).sample for each in latents * spread + center]
    frames = (torch.cat(clips).float().clamp(-1, 1) + 1) * 127.5
    return frames.round().to(torch.uint8).permute(0, 2, 3, 4, 1).cpu().contiguous()


@torch.no_grad()
def real_clips(vae: Any, count: int) -> Tensor:
    """Rendered validation clips, each followed by its reconstruction: (2 count, T, H, W, 3)."""
    renderer = Renderer(str(vae.device), workers=0)
    clips = image_pool(
        renderer, split_seeds("validation", count), batch=count, height=HEIGHT, width=WIDTH
    )
    renderer.close()
    video = clips.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
    again = torch.cat(
        [vae.decode(vae.encode(each[None]).latent_dist.mode()).sample for each in video]
    )
    frames = ((again.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return torch.stack([clips.cpu(), frames.permute(0, 2, 3, 4, 1).cpu()], dim=1).flatten(0, 1)


def load_run(run: Path, device: str) -> tuple[Any, str]:
    """The transformer of a run or of a shipped model, and its name."""
    tensors, card = load_checkpoint(run, "transformer")
    name = str(card.get("model", "toy-wan"))
    model: Any = WanTransformer3DModel(**card.get("config", VARIANTS[name].config))
    model.load_state_dict(tensors)
    return model.to(device).eval().requires_grad_(False), name


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--transformer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8, help="videos, of consecutive seeds")
    parser.add_argument("--real", type=int, default=1, help="rendered clips above them")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--shift", type=float, default=FLOW_SHIFT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--columns", default="0,4,8,12,16", help="frames on the sheet")
    parser.add_argument(
        "--shrink", type=int, default=2, help="pixels that become one, on the sheet"
    )
    parser.add_argument("--videos", action="store_true", help="also write all frames")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(argv)

    began = time.monotonic()
    vae = load_vae(options.vae, options.device)
    transformer, name = load_run(options.transformer, options.device)
    frames = 1 if name in VARIANTS and VARIANTS[name].frames_alone else FRAMES
    scale = vae.config.scale_factor_spatial
    size = (1 + (frames - 1) // 4, HEIGHT // scale, WIDTH // scale)
    found = [
        sample_latents(
            transformer, (1, vae.config.z_dim, *size),
            steps=options.steps, seed=options.seed + number, shift=options.shift,
        )
        for number in range(options.count)
    ]  # fmt: skip
    videos = pictures(vae, torch.cat(found))
    columns = [int(word) for word in options.columns.split(",")] if frames > 1 else [0]
    shown = videos
    if options.real and frames > 1:
        shown = torch.cat([real_clips(vae, options.real), videos])
    picture = sheet(np.asarray(shown), columns, shrink=options.shrink)
    options.out.mkdir(parents=True, exist_ok=True)
    replace_file(options.out / "samples.png", png(picture))
    if options.videos:
        replace_file(options.out / "samples.safetensors", save({"videos": videos}))
    facts = {
        "model": name,
        "samples": options.count,
        "steps": options.steps,
        "shift": options.shift,
        "seed": options.seed,
        "seconds": round(time.monotonic() - began, 1),
    }
    replace_file(options.out / "samples.json", json.dumps(facts, indent=1).encode())
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
