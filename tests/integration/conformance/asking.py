"""Clips and questions for any backbone: what the tests of this folder share."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from explorer import plugins
from explorer.backbones import registry
from explorer.backbones.base import Backbone
from explorer.clip import Clip, clip_from_frames
from explorer.features import Features

IDS = [card.id for card in registry.cards()]
for _plugin in plugins.load():  # a backbone that is left out would pass by not being asked
    if _plugin.error is not None:
        raise _plugin.error
SMALL_GRID = (2, 4)
FEW_TOKENS = 24
"""A grid of so many is small already: models with a table of places take no other."""


def small(backbone: Backbone, grid: tuple[int, int] = SMALL_GRID) -> Backbone:
    """The same loaded model (weights and lock) for a smaller picture, to be quick."""
    card = backbone.card
    if math.prod(card.token_grid) <= FEW_TOKENS:
        return backbone
    patch = [size // count for size, count in zip(card.input_size, card.token_grid, strict=True)]
    rows, columns = grid
    smaller = copy.copy(backbone)
    smaller.card = dataclasses.replace(
        card, input_size=(rows * patch[0], columns * patch[1]), token_grid=grid
    )
    return smaller


def make_clip(backbone: Backbone, count: int, *, seed: int = 0) -> Clip:
    return sized_clip(count, backbone.card.input_size, seed=seed)


def some_clip(backbone: Backbone, *, steps: int = 1, seed: int = 0) -> Clip:
    """A short clip that the model takes."""
    return make_clip(backbone, 1 + steps * backbone.card.frame_step, seed=seed)


def sized_clip(count: int, size: tuple[int, int], *, seed: int = 0) -> Clip:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    time = np.arange(count)[:, None, None]
    a, b, c = rng.uniform(2, 9, (3, 3))
    frames = np.stack([np.sin(a[i] * x + b[i] * y + c[i] / 9 * time) for i in range(3)], -1)
    return clip_from_frames((frames * 100 + 128).astype(np.uint8), name=f"waves {seed}")


def ask(backbone: Backbone, clip: Clip, **changes: Any) -> Features:
    """One cell of the last layer."""
    wanted: dict[str, Any] = {"layers": [backbone.card.layers - 1], "sigma": 0.3, **changes}
    return backbone.extract(clip, **wanted)[wanted["layers"][-1]]


def latents_of(backbone: Backbone, clip: Clip) -> dict[str, Any]:
    """The clip's latents, so that what follows runs the network for its features alone."""
    return {} if backbone.encoder_hash is None else {"latents": backbone.encode(clip)}


def any_latents(backbone: Backbone, count: int) -> dict[str, Any]:
    """Latents of a clip of `count` frames, made up where the model says their shape."""
    shape = getattr(backbone, "latent_shape", None)
    if shape is None:
        return latents_of(backbone, make_clip(backbone, count))
    return {"latents": np.random.default_rng(0).normal(size=shape(count)).astype(np.float32)}


def blocks_of(backbone: Backbone) -> Sequence[Any]:
    """Its blocks, also of a model that reads its network no sooner than a pass needs it."""
    if not backbone.blocks:
        ask(backbone, make_clip(backbone, 1))
    return backbone.blocks


def digests(models: Mapping[str, Backbone] | None = None) -> dict[str, str]:
    """Fingerprint of one cell of every backbone; `models` are those that are loaded already."""
    found = {}
    for name in IDS:
        loaded = (models or {}).get(name)
        backbone = small(loaded or registry.load(name, device="cpu"))
        features = ask(backbone, some_clip(backbone), seed=4)
        found[name] = hashlib.sha256(features.values.tobytes()).hexdigest()
    return found
