"""Encoding by Wan 2.1's VAE: each precision and layout, each kind of layers, in few passes."""

from __future__ import annotations

from functools import partial

import torch
from extraction_measure import Row, Setting

from explorer.backbones import _latents

WAYS = (
    ("float32", "float32", "theirs", 1),
    ("bfloat16", "bfloat16", "theirs", 1),
    ("bfloat16, channels last", "bfloat16", "channels last", 1),
    ("bfloat16, channels last, all slots in a pass", "bfloat16", "channels last", None),
    ("bfloat16, few steps", "bfloat16", "few steps", 1),
    ("bfloat16, few steps, 2 slots a pass", "bfloat16", "few steps", 2),
    ("bfloat16, few steps, 5 slots a pass", "bfloat16", "few steps", 5),
    ("bfloat16, few steps, all slots in a pass", "bfloat16", "few steps", None),
)
"""Words, precision, `extraction_models.LAYERS`, latent slots in a pass (None: all)."""
COMPILED_WAYS = (
    ("compiled: bfloat16, channels last", "bfloat16", "channels last", 1),
    ("compiled: bfloat16, channels last, 2 slots a pass", "bfloat16", "channels last", 2),
    ("compiled: bfloat16, few steps, 2 slots a pass", "bfloat16", "few steps", 2),
)


def rows(setting: Setting, name: str) -> list[Row]:
    """Measurements of all ways that this machine can go."""
    clip = setting.clip(setting.card(name))
    every = (len(clip.frames) - 1) // 4
    video = _latents.to_video(clip.frames, setting.device)
    found = []
    for words, dtype, layers, slots in WAYS + (COMPILED_WAYS if setting.compiled else ()):
        vae = setting.vae(dtype, layers)
        if words.startswith("compiled"):
            vae.encoder.forward = torch.compile(vae.encoder.forward, dynamic=False)
        encode = partial(_latents.encode_video, vae, video, slots=slots or every)
        found += setting.tried(f"VAE: {words}", encode)
        del vae, encode
    return found
