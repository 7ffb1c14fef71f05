"""HunyuanVideo, its version 1.5 and Open-Sora 2.0: tiny folders, and their networks by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hunyuan_by_hand as hand
import torch
from safetensors.torch import load_file

from explorer.backbones import (
    _hunyuan15_published,
    _hunyuan_published,
    _opensora_published,
    registry,
)
from explorer.backbones._options import Target
from explorer.clip import Clip
from explorer.nets.mmdit import MMDiT, MMDiTConfig
from explorer.noise import FlowSchedule, OpenSoraSchedule, Schedule

WIDTH = 24
SCALING15 = 1.03682
Given = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        id: in the registry.
        module: of its published folder.
        schedule: of its noise.
        transformer: made by hand of a folder's weights.
        given: what it is called with for a clip, a noise level and a seed.
        image: (N, C) tokens of the picture in a block's output.
        layers: number of blocks.
        files: patterns of transformer and VAE in a folder.
        passes: (frames, sigma) to compare.
    """

    id: str
    module: Any
    schedule: Schedule
    transformer: Callable[[Path], Any]
    given: Callable[[Path, Clip, float, int], Given]
    image: Callable[[Any], torch.Tensor]
    layers: int
    files: tuple[str, str] = ("transformer/*.safetensors", "vae/*.safetensors")
    passes: tuple[tuple[int, float], ...] = ((1, 0.0), (9, 0.7), (21, 0.3))

    def write(self, folder: Path) -> Path:
        """A tiny folder."""
        self.module.write_tiny(folder)
        return folder

    def load(self, folder: Path, dtype: str = "float32") -> Any:
        """The backbone of a folder."""
        card = registry.card(self.id, weights=folder)
        target = Target(weights=folder, dtype=dtype)
        return self.module.load(card, target, schedule=self.schedule)


def blocks_of(network: Any) -> list[Any]:
    """Blocks of any of these transformers, in running order."""
    if isinstance(network, MMDiT):
        return list(network.blocks)
    singles = getattr(network, "single_transformer_blocks", ())
    return [*network.transformer_blocks, *singles]


def weights_of(folder: Path, part: str) -> dict[str, torch.Tensor]:
    (path,) = (folder / part).glob("*.safetensors")
    return load_file(path)


def filled(network: Any, state: dict[str, torch.Tensor]) -> Any:
    network.load_state_dict(state, strict=True)
    return network.eval()


def hunyuan_transformer(folder: Path) -> Any:
    import diffusers

    library: Any = diffusers
    network = library.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_single_layers=3,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(4, 4, 4),
    )
    return filled(network, weights_of(folder, "transformer"))


def hunyuan_given(folder: Path, clip: Clip, sigma: float, seed: int) -> Given:
    vae = hand.plain_vae(*(folder / "vae").glob("*.safetensors"))
    latents = hand.encode(vae, hand.pixels(clip))
    texts = load_file(folder / "prompts" / "llava-llama-3-8b-256-clip-l-empty.safetensors")
    assert 0 < texts["mask"].sum() < texts["mask"].numel()
    return {
        "hidden_states": hand.mix(latents, sigma, seed) if sigma else latents,
        "timestep": torch.tensor([1000 * sigma]),
        "encoder_hidden_states": texts["text"],
        "encoder_attention_mask": texts["mask"],
        "pooled_projections": texts["pooled"],
        "guidance": torch.tensor([6016.0]),
    }


def hunyuan_image(output: Any) -> torch.Tensor:
    image, text = output
    assert text.shape == (1, 256, WIDTH)
    return image[0]


def vae15(folder: Path) -> Any:
    import diffusers

    library: Any = diffusers
    vae = library.AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(2, 4, 8, 16, 16), layers_per_block=1
    )
    return filled(vae, weights_of(folder, "vae"))


@torch.no_grad()
def encode15(vae: Any, video: torch.Tensor) -> torch.Tensor:
    return vae.encoder(video).chunk(2, dim=1)[0] * SCALING15


def transformer15(folder: Path) -> Any:
    import diffusers

    library: Any = diffusers
    network = library.HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=4,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=16,
        text_embed_2_dim=8,
        image_embed_dim=8,
        rope_axes_dim=(4, 4, 4),
    )
    return filled(network, weights_of(folder, "transformer"))


def given15(folder: Path, clip: Clip, sigma: float, seed: int) -> Given:
    latents = encode15(vae15(folder), hand.pixels(clip))
    latents = hand.mix(latents, sigma, seed) if sigma else latents
    texts = load_file(folder / "prompts" / "qwen2.5-vl-7b-1000-byt5-256-empty.safetensors")
    return {
        "hidden_states": torch.cat([latents, torch.zeros(1, 5, *latents.shape[2:])], dim=1),
        "timestep": torch.tensor([1000 * sigma]),
        "encoder_hidden_states": texts["text"],
        "encoder_attention_mask": texts["mask"],
        "encoder_hidden_states_2": texts["glyphs"],
        "encoder_attention_mask_2": texts["glyph_mask"],
        "image_embeds": torch.zeros(1, 729, 8),
    }


def image15(output: Any) -> torch.Tensor:
    image, text = output
    assert text.shape == (1, 1000 + 256 + 729, WIDTH)
    return image[0]


def opensora_transformer(folder: Path) -> MMDiT:
    config = MMDiTConfig(
        in_channels=16,
        vec_in_dim=8,
        context_in_dim=16,
        hidden_size=WIDTH,
        num_heads=2,
        depth=2,
        depth_single_blocks=3,
        axes_dim=(4, 4, 4),
        mlp_ratio=2.0,
    )
    network: MMDiT = filled(MMDiT(config), load_file(folder / "Open_Sora_v2.safetensors"))
    return network


def opensora_given(folder: Path, clip: Clip, sigma: float, seed: int) -> Given:
    video = hand.pixels(clip)
    vae = hand.plain_vae(folder / "hunyuan_vae.safetensors")
    latents, first = hand.encode(vae, video), hand.encode(vae, video[:, :, :1])
    condition = torch.zeros(1, 5, *latents.shape[2:])
    condition[:, 0, 0] = 1
    condition[:, 1:, 0] = first[:, :, 0]
    texts = load_file(folder / "prompts" / "t5-v1_1-xxl-512-clip-l-empty.safetensors")
    return {
        "noisy": hand.mix(latents, sigma, seed) if sigma else latents,
        "timestep": torch.tensor([sigma]),
        "text": texts["text"],
        "pooled": texts["pooled"],
        "condition": condition,
    }


HUNYUAN = Case(
    "hunyuanvideo",
    _hunyuan_published,
    FlowSchedule(7.0),
    hunyuan_transformer,
    hunyuan_given,
    hunyuan_image,
    layers=5,
)
HUNYUAN15 = Case(
    "hunyuanvideo-1.5",
    _hunyuan15_published,
    FlowSchedule(5.0),
    transformer15,
    given15,
    image15,
    layers=4,
    passes=((1, 0.0), (9, 0.625)),
)
OPENSORA = Case(
    "open-sora-2.0",
    _opensora_published,
    OpenSoraSchedule(1590, 33),
    opensora_transformer,
    opensora_given,
    lambda output: output[0, 512:],
    layers=5,
    files=("Open_Sora_v2.safetensors", "hunyuan_vae.safetensors"),
    passes=((1, 0.0), (9, 0.764), (21, 0.3)),
)
CASES = {case.id: case for case in (HUNYUAN, HUNYUAN15, OPENSORA)}
