"""Embeddings of prompts: from the folder, then the cache, and only then from the encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from explorer.backbones import _prompt, registry
from explorer.backbones._options import Target
from explorer.errors import BackboneError


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("EMERGE3D_CACHE", str(tmp_path / "store"))
    return tmp_path / "store"


def test_an_encoder_runs_once_for_a_prompt(tmp_path: Path) -> None:
    calls: list[str] = []

    def compute() -> dict[str, torch.Tensor]:
        calls.append("run")
        return {"prompt": torch.full((1, 2, 3), 0.5, dtype=torch.bfloat16)}

    for _ in range(2):
        found = _prompt.embeddings("enc", "a chair", folder=tmp_path, compute=compute)["prompt"]
        assert found.dtype == torch.float32
        assert found.eq(0.5).all()
    assert calls == ["run"]
    _prompt.embeddings("enc", "a table", folder=tmp_path, compute=compute)
    _prompt.embeddings("other", "a chair", folder=tmp_path, compute=compute)
    assert len(calls) == 3


def test_the_folder_of_weights_comes_first(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    save_file({"prompt": torch.ones(1)}, tmp_path / "prompts" / _prompt.prompt_file("enc", ""))

    def compute() -> dict[str, torch.Tensor]:
        raise AssertionError("the encoder was loaded")

    assert _prompt.embeddings("enc", "", folder=tmp_path, compute=compute)["prompt"].eq(1).all()


def test_another_prompt_without_an_encoder_says_what_is_missing(tmp_path: Path) -> None:
    registry.write_tiny("wan2.1-1.3b", tmp_path / "model")
    target = Target(weights=tmp_path / "model", prompt="a chair")
    with pytest.raises(BackboneError, match="no text_encoder in .* put its embedding into"):
        registry.load("wan2.1-1.3b", target=target)


def test_the_prompt_changes_the_features_and_their_key(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    registry.write_tiny("wan2.1-1.3b", folder)
    embedding = torch.randn(1, 512, 16, generator=torch.Generator().manual_seed(1))
    name = _prompt.prompt_file("umt5-xxl", "a chair")
    save_file({"prompt": embedding}, folder / "prompts" / name)
    empty = registry.hashes("wan2.1-1.3b", Target(weights=folder))
    asked = registry.hashes("wan2.1-1.3b", Target(weights=folder, prompt="a chair"))
    assert empty.weights != asked.weights
    assert empty.encoder == asked.encoder


def test_a_broken_embedding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prompts" / _prompt.prompt_file("enc", "")
    path.parent.mkdir()
    path.write_bytes(b"half of")
    with pytest.raises(BackboneError, match=r"enc-empty\.safetensors .*: remove it"):
        _prompt.embeddings("enc", "", folder=tmp_path, compute=dict)
