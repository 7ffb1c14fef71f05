"""Iterative camera head: a camera token per frame becomes a pose encoding (VGGT)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from explorer._typing import Float
from explorer.nets.attention import Block, Mlp

POSE_DIM = 9


class CameraHead(nn.Module):
    """Refines the pose encodings of S frames together, each pass seeing the previous result.

    Every pass modulates the camera tokens by the previous encoding (adaptive LayerNorm, as in
    DiT), runs a small transformer over the frames and adds a correction. Fields of view pass a
    ReLU; what is fed back is the value before it. Gradients do not cross passes.

    Args:
        in_dim: width of the camera tokens.
        dim: width inside the head; a linear layer reduces to it where it differs from `in_dim`.
        depth: blocks of the transformer.
        heads: its attention heads.
        iterations: passes.
        mlp_ratio: hidden width of the blocks' MLPs over `dim`.
        layer_scale: initial LayerScale.
        start: nine values that the first correction is added to.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        dim: int | None = None,
        depth: int = 4,
        heads: int = 16,
        iterations: int = 4,
        mlp_ratio: float = 4.0,
        layer_scale: float = 0.01,
        start: tuple[float, ...] = (0.0,) * POSE_DIM,
    ) -> None:
        super().__init__()
        dim = dim or in_dim
        self.iterations = iterations
        self.token_norm = nn.LayerNorm(in_dim, eps=1e-5)
        self.reduce = nn.Identity() if dim == in_dim else nn.Linear(in_dim, dim)
        self.trunk = nn.ModuleList(
            Block(dim, heads, mlp_ratio=mlp_ratio, layer_scale=layer_scale) for _ in range(depth)
        )
        self.trunk_norm = nn.LayerNorm(dim, eps=1e-5)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_DIM))
        self.embed_pose = nn.Linear(POSE_DIM, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.pose_branch = Mlp(dim, dim // 2, POSE_DIM)
        self.start: torch.Tensor
        self.register_buffer("start", torch.tensor(start), persistent=False)

    @torch.no_grad()
    def start_small(self) -> None:
        """Make the corrections of an untrained head small, so that it begins at `start`."""
        self.pose_branch.fc2.weight.mul_(0.02)
        self.pose_branch.fc2.bias.zero_()

    def forward(self, tokens: Float[torch.Tensor, "B S D"]) -> list[torch.Tensor]:
        """Pose encodings (B, S, 9) of all passes, the last one best.

        Each holds translation (3), quaternion xyzw (4, not normalised), field of view along the
        height and along the width (radians, >= 0).
        """
        tokens = self.reduce(self.token_norm(tokens))
        batch, frames, dim = tokens.shape
        normed = F.layer_norm(tokens, (dim,), eps=1e-6)
        previous = self.empty_pose_tokens.expand(batch, frames, -1)
        pose = self.start.to(tokens.dtype).expand(batch, frames, -1)
        encodings = []
        for _ in range(self.iterations):
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(previous)).chunk(3, dim=-1)
            x = gate * (normed * (1 + scale) + shift) + tokens
            for block in self.trunk:
                x = block(x)
            pose = pose + self.pose_branch(self.trunk_norm(x))
            encodings.append(torch.cat([pose[..., :7], F.relu(pose[..., 7:])], dim=-1))
            pose = pose.detach()
            previous = pose
        return encodings
