"""Embeddings of prompts: from the folder, then the cache, and only then from the encoder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from explorer.backbones import _memory, _prompt, _tiny, _wan_published, registry
from explorer.backbones._options import Target
from explorer.backbones._prompt_files import TextEncoder, given_file
from explorer.errors import BackboneError

ENCODER = TextEncoder("enc", "someone/some-model")
WAN = "wan2.1-1.3b"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("EMERGE3D_CACHE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an encoder and a tokenizer, as files."""
    for part in ENCODER.parts:
        (tmp_path / "model" / part).mkdir(parents=True)
        (tmp_path / "model" / part / "config.json").write_text("{}")
    save_file({"a": torch.zeros(2)}, tmp_path / "model" / "text_encoder" / "model.safetensors")
    return tmp_path / "model"


class Runs:
    """An encoder that counts its runs."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> dict[str, torch.Tensor]:
        self.count += 1
        return {"prompt": torch.full((1, 2, 3), 0.5, dtype=torch.bfloat16)}


def never() -> dict[str, torch.Tensor]:
    raise AssertionError("the encoder was loaded")


def test_an_encoder_runs_once_for_a_prompt(folder: Path) -> None:
    run = Runs()
    for _ in range(2):
        found = _prompt.embeddings(ENCODER, "a chair", folder=folder, compute=run)["prompt"]
        assert found.dtype == torch.float32
        assert found.eq(0.5).all()
    assert run.count == 1
    _prompt.embeddings(ENCODER, "a table", folder=folder, compute=run)
    _prompt.embeddings(replace(ENCODER, name="other"), "a chair", folder=folder, compute=run)
    assert run.count == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: save_file({"a": torch.ones(2)}, folder / "text_encoder/model.safetensors"),
        lambda folder: (folder / "text_encoder" / "config.json").write_text("[]"),
        lambda folder: (folder / "tokenizer" / "vocab.json").write_text("{}"),
    ],
    ids=["weights", "configuration", "tokenizer"],
)
def test_an_embedding_belongs_to_the_files_that_made_it(
    folder: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    run = Runs()
    _prompt.embeddings(ENCODER, "", folder=folder, compute=run)
    same = shutil.copytree(folder, tmp_path / "another model of the same encoder")
    _prompt.embeddings(ENCODER, "", folder=same, compute=never)
    change(folder)
    _prompt.embeddings(ENCODER, "", folder=folder, compute=run)
    assert run.count == 2


def test_the_folder_of_weights_comes_first(folder: Path) -> None:
    _tiny.write_prompt(ENCODER, folder, {"prompt": torch.ones(1)})
    found = _prompt.embeddings(ENCODER, "", folder=folder, compute=never)
    assert found["prompt"].eq(1).all()


def test_another_prompt_without_an_encoder_says_what_is_missing(tmp_path: Path) -> None:
    registry.write_tiny(WAN, tmp_path / "model")
    target = Target(weights=tmp_path / "model", prompt="a chair")
    with pytest.raises(BackboneError, match="no text_encoder in .* put its embedding into .* as"):
        registry.load(WAN, target=target)


def test_an_encoder_without_a_shard_is_not_run(folder: Path) -> None:
    weights = folder / "text_encoder" / "model.safetensors"
    weights.rename(weights.with_name("model-00002-of-00002.safetensors"))
    with pytest.raises(BackboneError, match="text_encoder lacks model-00001-of-00002.safetensors"):
        _prompt.embeddings(ENCODER, "", folder=folder, compute=never)


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_an_encoder_that_does_not_fit_into_memory_is_not_run(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "torch":
        (folder / "text_encoder" / "model.safetensors").unlink()
        torch.save({"a": torch.zeros(2)}, folder / "text_encoder" / "pytorch_model.bin")
    monkeypatch.setattr(_memory, "free", lambda device: 3)
    with pytest.raises(BackboneError, match="some-model needs about .* of host memory once"):
        _prompt.embeddings(ENCODER, "", folder=folder, compute=never)


def test_an_encoder_that_fails_is_named(folder: Path) -> None:
    def compute() -> dict[str, torch.Tensor]:
        raise OSError("no file named sentencepiece.bpe.model")

    with pytest.raises(BackboneError, match="cannot be used .no file named sentencepiece"):
        _prompt.embeddings(ENCODER, "", folder=folder, compute=compute)


def test_the_prompt_changes_the_features_key(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    registry.write_tiny(WAN, folder)
    embedding = torch.randn(1, 512, 16, generator=torch.Generator().manual_seed(1))
    _tiny.write_prompt(_wan_published.TEXT, folder, {"prompt": embedding}, "a chair")
    empty = registry.hashes(WAN, Target(weights=folder))
    asked = registry.hashes(WAN, Target(weights=folder, prompt="a chair"))
    assert empty.weights != asked.weights
    assert empty.encoder == asked.encoder


def test_another_embedding_in_the_folder_changes_the_features_key(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    registry.write_tiny(WAN, folder)
    before = registry.hashes(WAN, Target(weights=folder))
    _tiny.write_prompt(_wan_published.TEXT, folder, {"prompt": torch.ones(1, 512, 16)})
    after = registry.hashes(WAN, Target(weights=folder))
    assert after.weights != before.weights
    assert after.encoder == before.encoder, "latents know no text"


def test_another_text_encoder_changes_the_features_key(folder: Path, tmp_path: Path) -> None:
    registry.write_tiny(WAN, tmp_path / "wan")
    shutil.rmtree(tmp_path / "wan" / "prompts")
    shutil.copytree(folder, tmp_path / "wan", dirs_exist_ok=True)
    before = registry.hashes(WAN, Target(weights=tmp_path / "wan"))
    (tmp_path / "wan" / "tokenizer" / "vocab.json").write_text("{}")
    assert registry.hashes(WAN, Target(weights=tmp_path / "wan")).weights != before.weights


def test_a_broken_embedding_is_named(tmp_path: Path) -> None:
    path = given_file(ENCODER, tmp_path, "")
    path.parent.mkdir()
    path.write_bytes(b"half of")
    with pytest.raises(BackboneError, match=r"enc-empty\.safetensors .*: remove it"):
        _prompt.embeddings(ENCODER, "", folder=tmp_path, compute=dict)
