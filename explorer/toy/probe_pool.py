"""What probes are trained on: clips with exact geometry, and the features of every cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from explorer.backbones._latent_control import latent_patches
from explorer.backbones._position import position_channels
from explorer.backbones._toy_jepa import box_tokens, to_boxes
from explorer.backbones._toy_vggt import to_images, tokens_of
from explorer.backbones._wan import block_outputs
from explorer.backbones.base import slot_map
from explorer.probe.losses import Targets, normalize_targets
from explorer.toy.cells import Cell
from explorer.toy.config import (
    FRAMES,
    HEIGHT,
    JEPA_CONFIG,
    LARGE_CONFIG,
    TRANSFORMER_CONFIG,
    VARIANTS,
    VGGT_CONFIG,
    VGGT_MAPS,
    WIDTH,
    Variant,
)
from explorer.toy.latents import encode_alone, encode_whole
from explorer.toy.pool import Renderer, for_seconds

GRID = (18, 32)
MAPS = VGGT_MAPS
GEOMETRY = ("depth", "cam_from_world", "intrinsics")
SLOT_FRAMES = slot_map(FRAMES, 4)[1]
TRANSFORMERS = {
    **VARIANTS,
    "random": Variant("random", "", "", TRANSFORMER_CONFIG),
    "random-large": Variant("random-large", "", "", LARGE_CONFIG),
}
"""What reads noisy latents, with and without training."""


@dataclass(frozen=True)
class Needs:
    """What a pool must hold for some cells besides latents and the slots' frames.

    Attributes:
        alone: the latents of single frames.
        clips: all frames.
    """

    alone: bool = False
    clips: bool = False

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> Needs:
        """What any of these cells reads."""
        names = {cell.backbone for cell in cells}
        alone = any(TRANSFORMERS[name].frames_alone for name in names & set(TRANSFORMERS))
        return cls(alone, "toy-jepa" in names)


@dataclass(frozen=True)
class Views:
    """The slots' frames of N clips with exact geometry, on one device.

    Attributes:
        frames: (N, S, H, W, 3) uint8 pictures.
        depth: (N, S, 72, 128) z-depth, 0 in the sky.
        cam_from_world: (N, S, 3, 4).
        intrinsics: (N, 3, 3) in pixels of the maps.
    """

    frames: Tensor
    depth: Tensor
    cam_from_world: Tensor
    intrinsics: Tensor

    def targets(self, index: Tensor, slots: list[int] | None = None) -> Targets:
        """What a network should say about some clips, or some of their frames in some order."""
        order = slice(None) if slots is None else slots
        depth = self.depth[index][:, order]
        intrinsics = self.intrinsics[index][:, None].expand(-1, depth.shape[1], -1, -1)
        pose = self.cam_from_world[index][:, order]
        return normalize_targets(depth, pose, intrinsics, depth > 0)


@dataclass(frozen=True)
class Pool(Views):
    """`Views` and what the video models make of their clips.

    Attributes:
        latents: (N, C, S, h, w) bfloat16.
        alone: (N, C, S, h, w) bfloat16 latents of the slots' frames, each encoded by itself; None
            where no cell reads them.
        clips: (N, T, H, W, 3) uint8 pictures of all frames; None where no cell reads them.
    """

    latents: Tensor
    alone: Tensor | None = None
    clips: Tensor | None = None

    def inputs(self, index: Tensor, noise: Tensor) -> list[Tensor]:
        """What `Sources` reads of some clips, with noise of their latents' shape."""
        absent = noise[:0]  # a step that is recorded as a graph takes the same tensors every time
        alone = absent if self.alone is None else self.alone[index].float()
        clips = absent if self.clips is None else self.clips[index]
        return [self.latents[index].float(), self.frames[index], noise, alone, clips]

    def joined(self, join: Callable[[Tensor], Tensor]) -> Pool:
        """The pool with every tensor passed through `join`."""
        parts = {name: part for name, part in vars(self).items() if part is not None}
        return Pool(**{name: join(part) for name, part in parts.items()})


@torch.no_grad()
def make_views(
    renderer: Renderer, seeds: list[int], *, batch: int, seconds: float | None = None
) -> Views:
    """Render the slots' frames; geometry is traced at the maps' own pixel centres.

    With `seconds` only as many of the seeds as `for_seconds` allows.
    """
    slots = SLOT_FRAMES.tolist()
    parts: dict[str, list[Tensor]] = {name: [] for name in ("frames", *GEOMETRY)}
    pictures = renderer.batches(seeds, batch=batch, height=HEIGHT, width=WIDTH, frames=slots)
    traced = renderer.batches(
        seeds, batch=batch, height=MAPS[0], width=MAPS[1], frames=slots, images=False
    )
    for rendered, geometry in for_seconds(zip(pictures, traced, strict=True), seconds):
        parts["frames"].append(rendered.images.clone())
        for name in GEOMETRY:
            parts[name].append(getattr(geometry, name).clone())
    return Views(**{name: torch.cat(values) for name, values in parts.items()})


@torch.no_grad()
def make_pool(
    renderer: Renderer,
    vae: Any,
    seeds: list[int],
    *,
    batch: int,
    on_gpu: bool,
    needs: Needs | None = None,
) -> Pool:
    """Render and encode clips; geometry is traced at the maps' own pixel centres."""
    slots = SLOT_FRAMES.tolist()
    parts: dict[str, list[Tensor]] = {"latents": [], "frames": []}
    needed = needs or Needs()
    parts |= {name: [] for name in ("alone", "clips") if getattr(needed, name)}
    for rendered in renderer.batches(seeds, batch=batch, height=HEIGHT, width=WIDTH):
        with torch.autocast("cuda" if on_gpu else "cpu", dtype=torch.bfloat16, enabled=on_gpu):
            parts["latents"].append(encode_whole(vae, rendered.images).to(torch.bfloat16))
            if needed.alone:
                single = encode_alone(vae, rendered.images[:, slots])
                parts["alone"].append(single.to(torch.bfloat16))
        parts["frames"].append(rendered.images[:, slots].clone())
        if needed.clips:
            parts["clips"].append(rendered.images.clone())
    geometry: dict[str, list[Tensor]] = {name: [] for name in GEOMETRY}
    for rendered in renderer.batches(
        seeds, batch=batch, height=MAPS[0], width=MAPS[1], frames=slots, images=False
    ):
        for name, values in geometry.items():
            values.append(getattr(rendered, name).clone())
    return Pool(**{name: torch.cat(values) for name, values in (parts | geometry).items()})


class Sources:
    """Features of all cells of a process for a batch of clips."""

    def __init__(self, cells: list[Cell], models: dict[str, Any], device: str) -> None:
        self._cells, self._models, self._device = cells, models, device
        channels = torch.from_numpy(position_channels(SLOT_FRAMES, GRID, max_frames=FRAMES))
        self._position = channels.to(device)
        noisy = [cell.sigma for cell in cells if cell.backbone in (*TRANSFORMERS, "latent")]
        self.noisy_sigmas = sorted(set(noisy))

    def wide(self, backbone: str) -> int:
        """Channels of a backbone's features."""
        extra = self._position.shape[-1]
        if backbone == "rgb":
            return 3 * (HEIGHT // GRID[0]) * (WIDTH // GRID[1]) + extra
        if backbone == "latent":
            return 4 * int(TRANSFORMER_CONFIG["in_channels"]) + extra
        if backbone == "toy-jepa":
            return int(JEPA_CONFIG["dim"])
        if backbone == "toy-vggt":
            return 2 * int(VGGT_CONFIG["dim"])
        return TRANSFORMERS[backbone].width

    @torch.no_grad()
    def __call__(
        self,
        latents: Tensor,
        frames: Tensor,
        noise: Tensor,
        alone: Tensor | None = None,
        clips: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """(B, S, 18, 32, C) features of each cell, by its name; see `Pool.inputs`."""
        found: dict[str, Tensor] = {}
        on_gpu = self._device.startswith("cuda")
        for sigma in self.noisy_sigmas:
            noisy = (1 - sigma) * latents + sigma * noise
            for backbone in self._models.keys() & TRANSFORMERS.keys():
                layers = [
                    c.layer for c in self._cells if (c.backbone, c.sigma) == (backbone, sigma)
                ]
                if not layers:
                    continue
                seen = noisy
                if TRANSFORMERS[backbone].frames_alone:
                    if alone is None or not len(alone):
                        raise ValueError(f"{backbone} reads latents of single frames: none given")
                    mixed = (1 - sigma) * alone + sigma * noise
                    seen = mixed.transpose(1, 2).flatten(0, 1)[:, :, None]
                with torch.autocast(
                    self._device.split(":")[0],
                    dtype=torch.bfloat16,
                    enabled=on_gpu,
                    cache_enabled=False,
                ):
                    outputs = block_outputs(
                        self._models[backbone],
                        seen,
                        1000.0 * sigma,
                        layers=layers,
                        keep=lambda tokens: tokens.float(),
                    )
                for layer, tokens in outputs.items():
                    # A plain copy: tensors made in inference mode cannot take part in training.
                    placed = tokens.clone().reshape(len(latents), -1, *GRID, tokens.shape[-1])
                    found[Cell(backbone, layer, sigma).name] = placed
            if Cell("latent", 0, sigma) in self._cells:
                found[Cell("latent", 0, sigma).name] = self._placed(latent_patches(noisy, GRID))
        for name in ("toy-vggt", "toy-jepa"):
            mine = [cell for cell in self._cells if cell.backbone == name]
            if not mine:
                continue
            with torch.autocast(
                self._device.split(":")[0],
                dtype=torch.bfloat16,
                enabled=on_gpu,
                cache_enabled=False,
            ):
                layers = [cell.layer for cell in mine]
                if name == "toy-vggt":
                    taps = tokens_of(self._models[name], to_images(frames), layers=layers)
                else:
                    taps = self._boxes(self._models[name], clips, layers)
            for cell in mine:
                found[cell.name] = taps[cell.layer].float().clone()
        if any(cell.backbone == "rgb" for cell in self._cells):
            rows, columns = GRID
            split = frames.float().div(127.5).sub(1.0).unflatten(3, (columns, -1))
            split = split.unflatten(2, (rows, -1))  # B S h p w q 3
            found[Cell("rgb", 0, 0.0).name] = self._placed(
                split.permute(0, 1, 2, 4, 3, 5, 6).flatten(4)
            )
        return found

    def _boxes(self, model: Any, clips: Tensor | None, layers: list[int]) -> dict[int, Tensor]:
        if clips is None or not len(clips):
            raise ValueError("toy-jepa reads all frames of clips: none given")
        return box_tokens(model, to_boxes(clips), SLOT_FRAMES, layers=layers)

    def _placed(self, tokens: Tensor) -> Tensor:
        position = self._position.expand(len(tokens), -1, -1, -1, -1)
        return torch.cat([tokens, position.to(tokens.dtype)], dim=-1)
