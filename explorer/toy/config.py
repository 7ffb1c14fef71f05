"""Shapes of the shipped `toy-wan`: the classes and file layout of Wan2.1, 1,000 times smaller.

17 frames of 144x256 become 5x36x64 latents of 8 channels and 5x18x32 = 2,880 tokens of width 192.
"""

from __future__ import annotations

from typing import Any

FRAMES = 17
HEIGHT, WIDTH = 144, 256
SMALL_HEIGHT, SMALL_WIDTH = 96, 160  # where most of the training happens
TEXT_DIM = 32
FLOW_SHIFT = 3.0

VAE_CONFIG: dict[str, Any] = {
    "base_dim": 16,
    "z_dim": 8,
    "dim_mult": [1, 2, 4],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [True, True],  # the spelling is diffusers'
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 4,
    "latents_mean": [0.0] * 8,
    "latents_std": [1.0] * 8,
}

TRANSFORMER_CONFIG: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 3,
    "attention_head_dim": 64,
    "in_channels": 8,
    "out_channels": 8,
    "text_dim": TEXT_DIM,
    "freq_dim": 256,
    "ffn_dim": 768,
    "num_layers": 10,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 128,
}
