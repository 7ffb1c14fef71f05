"""Fast3R up to its features: many views in one pass (Yang et al. 2025, arXiv 2501.13928).

A CroCo encoder sees each view alone; a fusion decoder lets the tokens of all views attend to each
other. Module names are those of the published checkpoint; `without_heads` drops the only part of
it that is not built here, the two DPT heads that turn features into point maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from explorer._typing import Float, Int
from explorer.nets.attention import Block
from explorer.nets.rope import grid_rotation
from explorer.nets.vggt import PatchEmbed

HEADS = ("downstream_head.", "downstream_head_local.")
"""Prefixes of the published names that have no part in the features."""


@dataclass(frozen=True, kw_only=True)
class Fast3RConfig:
    """Sizes of a Fast3R; the defaults are those of jedyang97/Fast3R_ViT_Large_512.

    Attributes:
        patch: side of a patch in pixels.
        encoder_dim: width of the encoder's tokens.
        encoder_depth: its blocks.
        encoder_heads: its attention heads; encoder_dim / encoder_heads must be a multiple of 4.
        decoder_dim: width of the decoder's tokens.
        decoder_depth: its blocks.
        decoder_heads: its attention heads.
        mlp_ratio: hidden width of the MLPs over their width.
        rope_base: base of the encoder's rotary frequencies.
        view_ids: number of ids that tell the decoder's views apart.
        length_factor: multiplies the scale of the decoder's attention products. The architecture
            has sqrt(ln(views) / ln(views in training)) as an option; the released model uses 1.
    """

    patch: int = 16
    encoder_dim: int = 1024
    encoder_depth: int = 24
    encoder_heads: int = 16
    decoder_dim: int = 1024
    decoder_depth: int = 24
    decoder_heads: int = 16
    mlp_ratio: float = 4.0
    rope_base: float = 100.0
    view_ids: int = 1000
    length_factor: float = 1.0


class CroCoEncoder(nn.Module):
    """A ViT with rotary positions, one view at a time (CroCo v2, Weinzaepfel et al. 2023)."""

    def __init__(self, config: Fast3RConfig) -> None:
        super().__init__()
        dim, heads = config.encoder_dim, config.encoder_heads
        self.head_dim = dim // heads
        self.rope_base = config.rope_base
        self.patch_embed = PatchEmbed(dim, config.patch)
        self.enc_blocks = nn.ModuleList(
            Block(dim, heads, mlp_ratio=config.mlp_ratio, layer_scale=None, eps=1e-6)
            for _ in range(config.encoder_depth)
        )
        self.enc_norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, images: Float[torch.Tensor, "K 3 H W"]) -> Float[torch.Tensor, "K P D"]:
        """(K, h*w, encoder_dim) normalised tokens of images in [-1, 1]."""
        patches = self.patch_embed(images)
        grid = (patches.shape[-2], patches.shape[-1])
        rotation = grid_rotation(
            grid, self.head_dim, base=self.rope_base, start=0, device=patches.device
        )
        x = patches.flatten(2).transpose(1, 2)
        for block in self.enc_blocks:
            x = block(x, rotation)
        tokens: torch.Tensor = self.enc_norm(x)
        return tokens


class FusionDecoder(nn.Module):
    """Full self-attention over the tokens of all views; only an id tells the views apart."""

    def __init__(self, config: Fast3RConfig) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.decoder_embed = nn.Linear(config.encoder_dim, dim)
        self.dec_blocks = nn.ModuleList(
            Block(
                dim,
                config.decoder_heads,
                mlp_ratio=config.mlp_ratio,
                layer_scale=None,
                eps=1e-5,
                factor=config.length_factor,
            )
            for _ in range(config.decoder_depth)
        )
        self.dec_norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(
        self,
        tokens: Float[torch.Tensor, "B V P E"],
        view_ids: Int[torch.Tensor, "B V"],
        keep: Sequence[int] | None = None,
    ) -> list[torch.Tensor]:
        """The entries `keep` of the list that `Fast3R.forward` describes, or all."""
        batch, views, patches, _ = tokens.shape
        gathered: list[torch.Tensor] = []

        def gather(entry: int, x: torch.Tensor) -> None:
            if keep is None or entry in keep:
                by_view = x.reshape(batch, views, patches, -1).transpose(0, 1)
                gathered.append(by_view.flatten(0, 1))

        gather(0, tokens)
        embedded: torch.Tensor = self.decoder_embed(tokens)
        identity = view_vectors(view_ids, embedded.shape[-1]).to(embedded)
        x = (embedded + identity[:, :, None]).flatten(1, 2)
        last = len(self.dec_blocks)
        for entry, block in enumerate(self.dec_blocks, start=1):
            x = block(x)
            if entry < last:
                gather(entry, x)
        gather(last, self.dec_norm(x))
        return gathered


class Fast3R(nn.Module):
    """Views of one scene to features.

    Layers are counted through encoder and decoder. With the released sizes:

    ======  =====================================================  ==============
    layer   `blocks[layer]`                                        published list
    ======  =====================================================  ==============
    0-22    encoder block 0-22
    23      encoder block 23; its readout is after `enc_norm`      0
    24-46   decoder block 0-22                                     1-23
    47      decoder block 23; its readout is after `dec_norm`      24
    ======  =====================================================  ==============

    Nothing catches an exception raised in a hook. The queries and keys of a layer are what
    `blocks[layer].attn.product` is called with: (q, k, v), each (sequences, heads, N, head_dim),
    rotated by their positions in the encoder.
    """

    def __init__(self, config: Fast3RConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = CroCoEncoder(config)
        self.decoder = FusionDecoder(config)

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks in the order in which they run.

        Encoder blocks return (B*V, P, encoder_dim), decoder blocks (B, V*P, decoder_dim).
        """
        return [*self.encoder.enc_blocks, *self.decoder.dec_blocks]

    @property
    def readouts(self) -> list[nn.Module]:
        """Per layer, the module whose output is that layer's feature.

        The blocks, except that the last one of the encoder and of the decoder is read after its
        norm, as the published list does. Shapes as those of `blocks`.
        """
        encoder, decoder = self.encoder, self.decoder
        return [
            *encoder.enc_blocks[:-1],
            encoder.enc_norm,
            *decoder.dec_blocks[:-1],
            decoder.dec_norm,
        ]

    def forward(
        self,
        views: Float[torch.Tensor, "B V 3 H W"],
        *,
        view_ids: Int[torch.Tensor, "B V"] | None = None,
        keep: Sequence[int] | None = None,
    ) -> list[torch.Tensor]:
        """The published list of features, or some of its entries.

        Args:
            views: (B, V, 3, H, W) RGB in [-1, 1]; H and W are multiples of the patch.
            view_ids: (B, V) ids in [0, config.view_ids). 0, 1, 2, ... when None, so that the same
                views have the same features; the official code draws them with
                `random_view_ids` in every pass.
            keep: entries that are returned, in ascending order; all when None.

        Returns:
            One (V*B, P, D) tensor per kept entry, views first, then batch. Entry 0 is the
            encoder's output in its own width, entry i the output of decoder block i - 1, and the
            last entry, `decoder_depth`, the last block's output after `dec_norm`.

        Raises:
            ValueError: images are not made of patches, there are more views than ids, an id is
                out of range, or there is no such entry.
        """
        batch, count, _, height, width = views.shape
        patch, ids = self.config.patch, self.config.view_ids
        if not (height and width) or height % patch or width % patch:
            raise ValueError(f"views of {height}x{width} are not made of patches of {patch}")
        if keep is not None and not set(keep) <= set(range(self.config.decoder_depth + 1)):
            raise ValueError(f"entries {list(keep)} are not all in 0..{self.config.decoder_depth}")
        if view_ids is None:
            view_ids = torch.arange(count, device="cpu").expand(batch, -1)
        if count and not 0 <= int(view_ids.min()) <= int(view_ids.max()) < ids:
            raise ValueError(f"{count} views need ids in 0..{ids - 1}")
        tokens = self.encoder(views.flatten(0, 1)).unflatten(0, (batch, count))
        gathered: list[torch.Tensor] = self.decoder(tokens, view_ids, keep)
        return gathered


def view_vectors(view_ids: Int[torch.Tensor, "B V"], dim: int) -> Float[torch.Tensor, "B V D"]:
    """(B, V, dim) float32 [sin, cos] of view ids, base 10000; not part of the checkpoint."""
    half = dim // 2
    # in float64: an angle of 999 radians has lost five digits in float32
    index = torch.arange(half, device=view_ids.device, dtype=torch.float64)
    angle = view_ids[..., None].double() * 10000.0 ** (-index / half)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).float()


def random_view_ids(
    batch: int, views: int, *, count: int = 1000, generator: torch.Generator | None = None
) -> Int[torch.Tensor, "B V"]:
    """Ids as the official code draws them: 0 for the first view, others distinct in 1..count-1.

    Args:
        batch: scenes.
        views: per scene.
        count: number of ids, `Fast3RConfig.view_ids`.
        generator: of the CPU; the global one when None.

    Raises:
        ValueError: there are more views than ids.
    """
    if not 1 <= views <= count:
        raise ValueError(f"{views} views cannot have distinct ids out of {count}")
    drawn = [torch.randperm(count - 1, generator=generator)[: views - 1] + 1 for _ in range(batch)]
    return torch.stack([torch.cat([one.new_zeros(1), one]) for one in drawn])


def without_heads(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A published state dict less its two DPT heads, which loads strictly into `Fast3R`."""
    return {name: value for name, value in state.items() if not name.startswith(HEADS)}
