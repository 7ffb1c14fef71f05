"""Shapes of the shipped `toy-wan` and its variants: Wan2.1's classes, 1,000 times smaller.

17 frames of 144x256 become 5x36x64 latents of 16 channels and 5x18x32 = 2,880 tokens of width 192.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FRAMES = 17
HEIGHT, WIDTH = 144, 256
SMALL_HEIGHT, SMALL_WIDTH = 96, 160  # where most of the training happens
TEXT_DIM = 32
FLOW_SHIFT = 3.0

VAE_CONFIG: dict[str, Any] = {
    "base_dim": 16,
    "z_dim": 16,
    "dim_mult": [1, 2, 4],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [True, True],  # the spelling is diffusers'
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 4,
    "latents_mean": [0.0] * 16,
    "latents_std": [1.0] * 16,
}

TRANSFORMER_CONFIG: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 3,
    "attention_head_dim": 64,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": TEXT_DIM,
    "freq_dim": 256,
    "ffn_dim": 768,
    "num_layers": 10,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 128,
}

LARGE_CONFIG: dict[str, Any] = {**TRANSFORMER_CONFIG, "num_attention_heads": 5, "ffn_dim": 1280}

VGGT_CONFIG: dict[str, Any] = {
    "dim": 192,
    "heads": 6,
    "pairs": 6,
    "layer_scale": 1.0,
    "token_std": 0.02,
    "patch": 8,
    "native_grid": 24,
    "embedder_depth": 4,
    "embedder_heads": 6,
    "dpt_layers": (1, 3, 4, 5),
    "dpt_dim": 64,
    "dpt_stage_channels": (48, 64, 96, 128),
    "dpt_hidden": 32,
    "dpt_factors": (2.0, 1.0, 1.0, 0.5),
    "camera_dim": 192,
    "camera_depth": 2,
    "camera_heads": 6,
    "camera_mlp_ratio": 2.0,
    "camera_start": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.7, 1.1),
    "output_bias": (0.0, 0.0, 0.0, 0.0, 0.6931, 0.0),
}
VGGT_MAPS = (72, 128)  # what its dense heads are trained to predict

JEPA_CONFIG: dict[str, Any] = {
    "size": 144,
    "frames": 18,  # 17, the first of them twice: slot 0 is then a tubelet of its own
    "patch": 8,
    "tubelet": 2,
    "dim": 192,
    "depth": 14,
    "heads": 3,
}


@dataclass(frozen=True)
class Variant:
    """A transformer that `train_transformer` trains on the latents of toy-wan's VAE.

    Attributes:
        name: of the model and of its folder in assets/models.
        title: one line for people.
        note: what it is compared with, and why.
        config: of its `WanTransformer3DModel`.
        frames_alone: whether it sees each frame of a clip by itself.
        share: of the full run's distinct clips that its name promises.
        parameters: number of weights.
    """

    name: str
    title: str
    note: str
    config: dict[str, Any]
    frames_alone: bool = False
    share: float = 1.0
    parameters: int = 6_323_584

    @property
    def width(self) -> int:
        """Channels of a token."""
        return int(self.config["num_attention_heads"] * self.config["attention_head_dim"])

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return int(self.config["num_layers"])


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(
            "toy-wan",
            "Toy Wan: small video diffusion transformer",
            "Stands for the video generators: trained on rendered pixels only, never on 3D.",
            TRANSFORMER_CONFIG,
        ),
        Variant(
            "toy-wan-large",
            "Toy Wan, three times as large",
            "toy-wan with about three times as many weights: what size alone brings.",
            LARGE_CONFIG,
            parameters=17_420_544,
        ),
        Variant(
            "toy-wan-1pct",
            "Toy Wan trained on 1 % of the clips",
            "toy-wan trained equally long on a hundredth of the clips: what data alone brings.",
            TRANSFORMER_CONFIG,
            share=0.01,
        ),
        Variant(
            "toy-wan-10pct",
            "Toy Wan trained on 10 % of the clips",
            "toy-wan trained equally long on a tenth of the clips: what data alone brings.",
            TRANSFORMER_CONFIG,
            share=0.1,
        ),
        Variant(
            "toy-image",
            "Toy image model: toy-wan without time",
            "toy-wan's network trained on single frames: what time alone brings.",
            TRANSFORMER_CONFIG,
            frames_alone=True,
        ),
    )
}
