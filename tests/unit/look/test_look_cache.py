"""What is stored is found again only by what would compute the same."""

from __future__ import annotations

from typing import Any

import pytest

from explorer.backbones import registry
from explorer.backbones.base import Hashes
from explorer.look import cache


def keys() -> tuple[dict[str, Any], dict[str, Any]]:
    """(of latents, of features) of one cell."""
    card, hashes = registry.card("rgb"), Hashes("w", "e")
    clip = {"clip": "c"}
    features = cache.features_key(
        clip, card, hashes, layer=0, sigma=0.0, seed=0, device="cpu", dtype="float32"
    )
    return cache.latents_key(clip, card, hashes, "cpu"), features


@pytest.mark.parametrize("library", ["torch", "diffusers", "transformers"])
def test_another_release_of_a_library_with_networks_has_keys_of_its_own(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    before = keys()
    monkeypatch.setattr(cache, "versions", lambda: {**VERSIONS, library: "0.0.1"})
    after = keys()
    assert before[1] != after[1]
    assert (before[0] != after[0]) == (library != "transformers"), "no VAE is in transformers"


VERSIONS = cache.versions()
