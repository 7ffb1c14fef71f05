"""V-JEPA's objective on clips of the world (Bardes et al. 2024, arXiv 2404.08471).

A context encoder sees the tokens that are left of a clip; from them a predictor says what a target
encoder, the running average of the context encoder, makes of the masked ones; L1 in feature space.
Masks are blocks of the picture through all of time, so that a neighbour in time cannot give the
answer away. Their number of tokens is fixed, which keeps every shape the same.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explorer.nets.attention import Block
from explorer.nets.vjepa import VideoViT, VideoViTConfig

MASKED = 0.75  # of the picture
BLOCKS = 8
TARGET = "target."  # prefix of the weights whose features are read
PREDICTOR_DIM, PREDICTOR_DEPTH, PREDICTOR_HEADS = 96, 4, 3


def draw_masks(
    batch: int, grid: tuple[int, int, int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(kept, masked) indices (B, K) and (B, M) of the tokens of a grid (t, h, w), K + M = t*h*w.

    In each clip 75 % of the places are masked in every frame: those that 8 random rectangles cover,
    cut or filled up by chance. A rectangle is 15 % of the picture, with an aspect of 3/4 to 4/3.
    """
    time, height, width = grid

    def draw() -> Tensor:
        return torch.rand(batch, BLOCKS, 1, generator=generator)

    aspect = torch.exp((2 * draw() - 1) * torch.log(torch.tensor(4 / 3)))
    tall = (0.15 * height * width * aspect).sqrt()
    wide = 0.15 * height * width / tall
    top, left = draw() * (height - tall).clamp_min(0), draw() * (width - wide).clamp_min(0)
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    in_rows = (rows >= top) & (rows < top + tall)
    in_columns = (columns >= left) & (columns < left + wide)
    covered = (in_rows[..., :, None] & in_columns[..., None, :]).sum(1).flatten(1)
    score = covered.clamp(max=1) + torch.rand(batch, height * width, generator=generator)
    order = score.argsort(dim=1, descending=True)
    count = round(MASKED * height * width)
    frames = torch.arange(time)[:, None] * height * width

    def through_time(places: Tensor) -> Tensor:
        return (places[:, None] + frames).flatten(1)

    return through_time(order[:, count:].sort(1).values), through_time(
        order[:, :count].sort(1).values
    )


def pick(tokens: Tensor, index: Tensor) -> Tensor:
    """(B, K, D) tokens at (B, K) places of (B, N, D)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def encode(encoder: VideoViT, video: Tensor, kept: Tensor | None = None) -> Tensor:
    """Normalised output tokens of all of a clip, or of only some of its tokens."""
    x = encoder.patch_embed(video).flatten(2).transpose(1, 2)
    x = x + encoder.positions(encoder.grid(*video.shape[2:]))
    if kept is not None:
        x = pick(x, kept)
    for block in encoder.blocks:
        x = block(x)
    found: Tensor = encoder.norm(x)
    return found


class Predictor(nn.Module):
    """Context tokens and places in, the target encoder's tokens at these places out."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = PREDICTOR_DIM
        self.enter = nn.Linear(dim, inner)
        self.place = nn.Linear(dim, inner)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, inner))
        self.blocks = nn.ModuleList(
            Block(inner, PREDICTOR_HEADS, layer_scale=None, eps=1e-6)
            for _ in range(PREDICTOR_DEPTH)
        )
        self.norm = nn.LayerNorm(inner, eps=1e-6)
        self.leave = nn.Linear(inner, dim)

    def forward(self, context: Tensor, positions: Tensor, kept: Tensor, masked: Tensor) -> Tensor:
        """(B, M, D) of context (B, K, D) and the positions (B, N, D) of all tokens."""
        places = self.place(positions)
        seen = self.enter(context) + pick(places, kept)
        wanted = self.mask_token + pick(places, masked)
        x = torch.cat([seen, wanted.to(seen.dtype)], dim=1)
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.leave(self.norm(x[:, kept.shape[1] :]))
        return found


class Jepa(nn.Module):
    """Context encoder, predictor, and the target encoder that no gradient reaches."""

    def __init__(self, config: VideoViTConfig) -> None:
        super().__init__()
        self.encoder = VideoViT(config)
        self.predictor = Predictor(config.dim)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move the target encoder towards the context encoder."""
        ours = [p.detach() for p in self.target.parameters()]
        theirs = [p.detach() for p in self.encoder.parameters()]
        torch._foreach_lerp_(ours, theirs, 1.0 - momentum)


def jepa_losses(
    model: Jepa, video: Tensor, kept: Tensor, masked: Tensor, *, autocast: bool
) -> Tensor:
    """(L1, spread of the targets) of clips (B, 3, U, H, W).

    The spread is the mean standard deviation of a target channel over tokens, 1 where none have
    collapsed; a collapse of the features to a constant shows as a fall towards 0.
    """
    with torch.autocast(
        video.device.type, dtype=torch.bfloat16, enabled=autocast, cache_enabled=False
    ):
        with torch.no_grad():
            every = encode(model.target, video).float()
            targets = pick(F.layer_norm(every, every.shape[-1:]), masked)
        positions = model.encoder.positions(model.encoder.grid(*video.shape[2:]))
        context = encode(model.encoder, video, kept)
        everywhere = positions.expand(len(video), -1, -1)
        predicted = model.predictor(context, everywhere, kept, masked)
    loss = (predicted.float() - targets).abs().mean()
    return torch.stack([loss, targets.flatten(0, 1).std(0).mean()])
