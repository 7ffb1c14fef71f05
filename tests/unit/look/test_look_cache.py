"""What is stored is found again only by what would compute the same."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from explorer.backbones import registry
from explorer.backbones.base import BackboneCard, Hashes
from explorer.clip import clip_from_frames
from explorer.look import cache

CARD, HASHES = registry.card("toy-wan"), Hashes("w", "e")
CELL = {"layer": 5, "sigma": 0.3, "seed": 0}
VERSIONS = cache.versions()


def keys(
    *,
    clip: str = "c",
    card: BackboneCard = CARD,
    hashes: Hashes = HASHES,
    device: str = "cpu",
    dtype: str = "float32",
    probe: str = "p",
    **cell: Any,
) -> dict[str, dict[str, Any]]:
    """Of all that is stored of one cell."""
    pixels = {"clip": clip}
    features = cache.features_key(
        pixels, card, hashes, device=device, dtype=dtype, **{**CELL, **cell}
    )
    return {
        "latents": cache.latents_key(pixels, card, hashes, device),
        "features": features,
        "prediction": cache.prediction_key(features, probe),
    }


@pytest.mark.parametrize(
    ("changed", "others"),
    [
        ({"clip": "d"}, "latents features prediction"),
        ({"device": "cuda"}, "latents features prediction"),
        ({"hashes": Hashes("w", "f")}, "latents"),  # a whole model's hash changes with its VAE's
        ({"card": replace(CARD, input_size=(72, 128))}, "latents"),  # features: the clip's pixels
        ({"hashes": Hashes("v", "e")}, "features prediction"),
        ({"card": replace(CARD, id="random")}, "features prediction"),  # they share their VAE
        ({"dtype": "bfloat16"}, "features prediction"),  # the VAE runs in float32
        ({"compiled": True}, "features prediction"),
        ({"layer": 4}, "features prediction"),
        ({"sigma": 0.31}, "features prediction"),
        ({"seed": 1}, "features prediction"),
        ({"probe": "q"}, "prediction"),
    ],
)
def test_what_would_compute_something_else_has_another_key(
    changed: dict[str, Any], others: str
) -> None:
    before, after = keys(), keys(**changed)
    assert [name for name in before if before[name] != after[name]] == others.split()


def test_the_gpus_of_a_machine_count_as_one() -> None:
    assert keys(device="cuda:0") == keys(device="cuda:1") == keys(device="cuda")


def test_another_window_and_other_pixels_of_it_are_other_clips() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 6, 8, 3), dtype=np.uint8)
    first = clip_from_frames(frames, name="a")
    other = replace(first, frames=np.where(frames > 200, 0, frames))  # of another decoder
    later = replace(first, content_hash="of another window")
    digests = [cache.clip_key(clip) for clip in (first, other, later)]
    assert digests[0] == cache.clip_key(clip_from_frames(frames, name="b"))
    assert all(one != two for one, two in itertools.combinations(digests, 2))


@pytest.mark.parametrize("library", ["torch", "diffusers", "transformers"])
def test_another_release_of_a_library_with_networks_has_keys_of_its_own(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    before = keys()
    monkeypatch.setattr(cache, "versions", lambda: {**VERSIONS, library: "0.0.1"})
    after = keys()
    assert before["features"] != after["features"]
    changed = before["latents"] != after["latents"]
    assert changed == (library != "transformers"), "no VAE is in transformers"
