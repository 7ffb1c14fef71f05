"""DPT head: token maps of several depths become one dense map (Ranftl et al. 2021, as in VGGT)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from explorer._typing import Float


def resize(
    x: Float[torch.Tensor, "K C h w"], size: tuple[int, int]
) -> Float[torch.Tensor, "K C H W"]:
    """Bilinear resize whose corner pixels coincide (align_corners), as in DPT."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    # torch 2.13 compiles the backward of `interpolate` to zeros on a CPU, and its kernel on a GPU
    # adds up in any order; two small products have neither fault. Eagerly they are the slower.
    if torch.compiler.is_compiling():
        return _resize_by_products(x, size)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def _resize_by_products(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """As `resize`: R x C^T with the weights of rows and columns; each row of them sums to 1."""
    rows, columns = (
        _line_weights(n, m, x.device).to(x.dtype) for n, m in zip(x.shape[-2:], size, strict=True)
    )
    return rows @ (x @ columns.T)


def _line_weights(count: int, wanted: int, device: torch.device) -> torch.Tensor:
    """(wanted, count) weights of a linear resize of a line whose ends coincide."""
    at = torch.arange(wanted, device=device) * ((count - 1) / max(wanted - 1, 1))
    return (1.0 - (at[:, None] - torch.arange(count, device=device)).abs()).clamp(min=0.0)


def uv_embedding(
    size: tuple[int, int],
    channels: int,
    aspect: float,
    *,
    base: float = 100.0,
    device: torch.device | None = None,
) -> Float[torch.Tensor, "C H W"]:
    """Sines and cosines of where a pixel lies in the picture.

    Args:
        size: (H, W) of the map.
        channels: C, a multiple of 4: [sin x, cos x, sin y, cos y].
        aspect: width / height of the picture that the map covers. Coordinates run over the
            picture scaled to unit half-diagonal, less one cell at the ends.
        base: of the geometric series of frequencies.
        device: where the map lives; it is float32.

    Raises:
        ValueError: channels is not a multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"the position map needs 4k channels, got {channels}")
    height, width = size
    diagonal = (aspect * aspect + 1.0) ** 0.5
    u_end = aspect / diagonal * (width - 1) / width
    v_end = 1.0 / diagonal * (height - 1) / height
    u = torch.linspace(-u_end, u_end, width, device=device)
    v = torch.linspace(-v_end, v_end, height, device=device)
    quarter = channels // 4
    omega = base ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    by_u, by_v = omega[:, None] * u, omega[:, None] * v
    x_map = torch.cat([by_u.sin(), by_u.cos()])[:, None, :].expand(-1, height, -1)
    y_map = torch.cat([by_v.sin(), by_v.cos()])[:, :, None].expand(-1, -1, width)
    return torch.cat([x_map, y_map])


class ResidualUnit(nn.Module):
    """relu(x) + conv(relu(conv(relu(x)))): the skip path carries the activated input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Float[torch.Tensor, "K C h w"]) -> Float[torch.Tensor, "K C h w"]:
        """(K, C, h, w) refined."""
        x = F.relu(x)
        out: torch.Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return out


class Fusion(nn.Module):
    """Adds a finer level to a coarser one, refines, enlarges, mixes channels."""

    def __init__(self, dim: int, *, coarsest: bool = False) -> None:
        super().__init__()
        if not coarsest:
            self.resConfUnit1 = ResidualUnit(dim)
        self.resConfUnit2 = ResidualUnit(dim)
        self.out_conv = nn.Conv2d(dim, dim, 1)

    def forward(
        self,
        x: Float[torch.Tensor, "K C h w"],
        finer: Float[torch.Tensor, "K C h w"] | None,
        size: tuple[int, int],
    ) -> Float[torch.Tensor, "K C H W"]:
        """(K, C, H, W) at `size`; `finer` has the size of x, None at the coarsest level."""
        if finer is not None:
            x = x + self.resConfUnit1(finer)
        out: torch.Tensor = self.out_conv(resize(self.resConfUnit2(x), size))
        return out


class _Scratch(nn.Module):
    """The convolutions after reassembly; the names are those of published checkpoints."""

    def __init__(self, dim: int, stages: Sequence[int], hidden: int, out: int) -> None:
        super().__init__()
        one, two, three, four = stages
        self.layer1_rn = nn.Conv2d(one, dim, 3, padding=1, bias=False)
        self.layer2_rn = nn.Conv2d(two, dim, 3, padding=1, bias=False)
        self.layer3_rn = nn.Conv2d(three, dim, 3, padding=1, bias=False)
        self.layer4_rn = nn.Conv2d(four, dim, 3, padding=1, bias=False)
        self.refinenet1 = Fusion(dim)
        self.refinenet2 = Fusion(dim)
        self.refinenet3 = Fusion(dim)
        self.refinenet4 = Fusion(dim, coarsest=True)
        self.output_conv1 = nn.Conv2d(dim, dim // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(dim // 2, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, out, 1)
        )


class DPTHead(nn.Module):
    """Four token maps of one grid become a dense map of raw values.

    Args:
        in_dim: width of a token.
        out: channels of the result, before any activation.
        dim: channels of the fusion path.
        stages: channels of the four reassembled levels (multiples of 4).
        hidden: channels before the last 1x1 convolution.
        factors: size of the four levels relative to the grid: an integer enlarges by a transposed
            convolution, 1 keeps, 0.5 halves by a strided convolution. The fused map has twice the
            size of the first level.
    """

    def __init__(
        self,
        in_dim: int,
        out: int,
        *,
        dim: int = 256,
        stages: Sequence[int] = (256, 512, 1024, 1024),
        hidden: int = 32,
        factors: Sequence[float] = (4.0, 2.0, 1.0, 0.5),
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_dim, eps=1e-5)
        self.projects = nn.ModuleList(nn.Conv2d(in_dim, stage, 1) for stage in stages)
        self.resize_layers = nn.ModuleList(
            _reassemble(stage, factor) for stage, factor in zip(stages, factors, strict=True)
        )
        self.scratch = _Scratch(dim, stages, hidden, out)

    @torch.no_grad()
    def start_at(self, values: Sequence[float]) -> None:
        """Make the raw values of an untrained head lie near these."""
        weight, bias = list(self.scratch.output_conv2.parameters())[-2:]
        weight.mul_(0.1)
        bias.copy_(torch.tensor(values))

    def forward(
        self,
        maps: Sequence[torch.Tensor],
        grid: tuple[int, int],
        size: tuple[int, int],
        *,
        picture: tuple[int, int] | None = None,
    ) -> Float[torch.Tensor, "K out H W"]:
        """Raw values for K pictures.

        Args:
            maps: four (K, h*w, in_dim) token maps, row-major.
            grid: (h, w).
            size: (H, W) of the result.
            picture: (height, width) whose aspect the position maps use; `size` when None.
        """
        height, width = picture or size
        aspect = width / height
        levels = []
        for tokens, project, reassemble in zip(
            maps, self.projects, self.resize_layers, strict=True
        ):
            count, _, channels = tokens.shape
            level = self.norm(tokens).transpose(1, 2).reshape(count, channels, *grid)
            levels.append(reassemble(_placed(project(level), aspect)))
        net = self.scratch
        one, two, three, four = (
            net.layer1_rn(levels[0]),
            net.layer2_rn(levels[1]),
            net.layer3_rn(levels[2]),
            net.layer4_rn(levels[3]),
        )
        x = net.refinenet4(four, None, _size(three))
        x = net.refinenet3(x, three, _size(two))
        x = net.refinenet2(x, two, _size(one))
        x = net.refinenet1(x, one, (2 * one.shape[-2], 2 * one.shape[-1]))
        x = _placed(resize(net.output_conv1(x), size), aspect)
        out: torch.Tensor = net.output_conv2(x)
        return out


def _reassemble(channels: int, factor: float) -> nn.Module:
    if factor == 1:
        return nn.Identity()
    if factor == 0.5:
        return nn.Conv2d(channels, channels, 3, stride=2, padding=1)
    return nn.ConvTranspose2d(channels, channels, int(factor), stride=int(factor))


def _placed(x: torch.Tensor, aspect: float) -> torch.Tensor:
    return x + 0.1 * uv_embedding(_size(x), x.shape[1], aspect, device=x.device).to(x.dtype)


def _size(x: torch.Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
