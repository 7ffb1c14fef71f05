"""Where the toy VAE loses what it loses: by frame, texture and spatial frequency, beside what a
linear code of as many numbers loses, and how far the world itself aliases.

    python benchmarks/vae_errors.py --vae assets/models/toy-wan [--clips 17] [--alias 10]

Prints JSON. Clips are those of the validation split, 17 frames of 144x256.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from explorer.data.world import WORLD_VERSION, render, sample_scenes
from explorer.data.world.spec import TEXTURES
from explorer.data.world.splits import split_seeds
from explorer.toy.config import HEIGHT, SMALL_HEIGHT, SMALL_WIDTH, WIDTH
from explorer.toy.latents import load_vae
from explorer.toy.train_vae import to_unit

BANDS = (0.0, 0.07, 0.13, 0.2, 0.3, 0.72)  # cycles a pixel


def decibels(square: float) -> float:
    """PSNR of a mean squared error of values in [0, 1]."""
    return round(float(-10 * np.log10(max(square, 1e-12))), 2)


class Errors:
    """Squared errors of clips, gathered in several ways."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []
        self.textures = {name: np.zeros(2) for name in (*TEXTURES, "sky")}
        self.bands = np.zeros((2, len(BANDS) - 1))

    def add(
        self, clip: np.ndarray, decoded: np.ndarray, surface: np.ndarray, kinds: np.ndarray
    ) -> None:
        """Count a clip: pictures (T, H, W, 3) in [0, 1], surface ids, textures of the surfaces."""
        square = ((clip - decoded) ** 2).mean(-1)
        self.frames.append(square.mean((1, 2)))
        texture = np.where(surface > 0, kinds[surface], len(TEXTURES))
        for number, sums in enumerate(self.textures.values()):
            chosen = square[texture == number]
            sums += chosen.sum(), chosen.size
        height, width = clip.shape[1:3]
        window = np.outer(np.hanning(height), np.hanning(width))
        radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
        band = np.digitize(radius, BANDS) - 1
        for index in (0, len(clip) // 2, len(clip) - 1):
            grey, error = clip[index].mean(-1), (clip[index] - decoded[index]).mean(-1)
            for row, picture in enumerate((grey - grey.mean(), error)):
                power = np.abs(np.fft.fft2(picture * window)) ** 2
                for number in range(len(BANDS) - 1):
                    self.bands[row, number] += power[band == number].sum()

    def summary(self) -> dict[str, Any]:
        """JSON-ready."""
        clips = [decibels(float(frames.mean())) for frames in self.frames]
        total = sum(sums[0] for sums in self.textures.values())
        names = [f"{low:g} to {high:g}" for low, high in zip(BANDS, BANDS[1:], strict=False)]
        lost = self.bands[1] / np.maximum(self.bands[0], 1e-12)
        return {
            "psnr_db": round(float(np.mean(clips)), 2),
            "psnr_db_of_clips": clips,
            "psnr_db_of_frames": [
                round(float(np.mean([decibels(float(f[k])) for f in self.frames])), 2)
                for k in range(len(self.frames[0]))
            ],
            "textures": {
                name: {
                    "psnr_db": decibels(sums[0] / sums[1]),
                    "share_of_error": round(float(sums[0] / total), 3),
                }
                for name, sums in self.textures.items()
                if sums[1]
            },
            "share_lost_by_cycles_a_pixel": dict(zip(names, lost.round(3).tolist(), strict=True)),
        }


def linear_code(clips: list[np.ndarray], slots: int, channels: int) -> float:
    """Mean PSNR of the best linear code of 4x4 patches of `slots` frames (Karhunen-Loeve)."""
    patches = []
    for clip in clips:
        frames = clip[:1] if slots == 1 else clip[1:]
        count, height, width, _ = frames.shape
        split = frames.reshape(count // slots, slots, height // 4, 4, width // 4, 4, 3)
        patches.append(split.transpose(0, 2, 4, 1, 3, 5, 6).reshape(-1, slots * 48))
    every = np.concatenate(patches)
    mean = every.mean(axis=0)
    _, vectors = np.linalg.eigh((every - mean).T @ (every - mean))
    basis = vectors[:, -channels:]
    errors = [(x - mean) - (x - mean) @ basis @ basis.T for x in patches]
    return round(float(np.mean([decibels(float((e**2).mean())) for e in errors])), 2)


def aliasing(count: int, size: tuple[int, int]) -> float:
    """Mean PSNR of one frame as clips have it (4 rays a pixel) against one of 36 rays a pixel."""
    found = []
    for seed in split_seeds("validation", count):
        scene = sample_scenes([seed])
        few, many = (
            render(scene, height=size[0], width=size[1], frames=[8], supersample=rays).images
            for rays in (2, 6)
        )
        found.append(decibels(float(((few.float() - many.float()) ** 2).mean()) / 255**2))
    return round(float(np.mean(found)), 2)


@torch.no_grad()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=17)
    parser.add_argument("--alias", type=int, default=10, help="clips for the world's aliasing")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    vae: Any = load_vae(arguments.vae, arguments.device)
    errors, clips = Errors(), []
    for seed in split_seeds("validation", arguments.clips):
        scene = sample_scenes([seed])
        found = render(scene, height=HEIGHT, width=WIDTH, device=arguments.device)
        decoded = vae.decode(vae.encode(to_unit(found.images)).latent_dist.mode()).sample
        clip = found.images[0].cpu().numpy().astype(np.float32) / 255
        again = (decoded[0].permute(1, 2, 3, 0).float().cpu().numpy() + 1) / 2
        kinds = scene.texture[0, :, 0].astype(int)
        errors.add(clip, again, found.surface[0].cpu().numpy(), kinds)
        clips.append(clip)
    result = {"world": WORLD_VERSION, "clips": arguments.clips, **errors.summary()}
    result["linear_code_db"] = {
        f"{channels} channels": {
            "frame 0": linear_code(clips, 1, channels),
            "others": linear_code(clips, 4, channels),
        }
        for channels in (8, 16)
    }
    sizes = ((HEIGHT, WIDTH), (SMALL_HEIGHT, SMALL_WIDTH))
    result["aliasing_db"] = {f"{h}x{w}": aliasing(arguments.alias, (h, w)) for h, w in sizes}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
