"""One copy of a part's weights is read, and an interrupted download is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from explorer.backbones._weight_files import weight_files
from explorer.errors import BackboneError


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"")


def index(folder: Path, name: str, *shards: str) -> None:
    (folder / name).write_text(json.dumps({"weight_map": dict(zip("abc", shards, strict=False))}))


def names_of(folder: Path) -> list[str]:
    found = weight_files(folder)
    assert found.missing == ()
    return [path.name for path in found.files]


STEM = "diffusion_pytorch_model"
SHARDS = [f"{STEM}-0000{n}-of-00002.safetensors" for n in (1, 2)]


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ([f"{STEM}.safetensors", f"{STEM}.fp16.safetensors"], [f"{STEM}.safetensors"]),
        ([f"{STEM}.bf16.safetensors", f"{STEM}.fp16.safetensors"], [f"{STEM}.bf16.safetensors"]),
        ([f"{STEM}.fp16.safetensors", f"{STEM}.bin"], [f"{STEM}.fp16.safetensors"]),
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["pytorch_model.bin", "pytorch_model.fp16.bin"], ["pytorch_model.bin"]),
        ([*SHARDS, f"{STEM}.safetensors"], [f"{STEM}.safetensors"]),
        ([*SHARDS, f"{STEM}.fp16.safetensors"], SHARDS),
        (["model.safetensors", "adapter.safetensors"], ["model.safetensors"]),
        (["a-0.safetensors", "a-1.safetensors"], ["a-0.safetensors", "a-1.safetensors"]),
    ],
)
def test_of_several_copies_one_is_read_by_a_stated_rule(
    tmp_path: Path, there: list[str], taken: list[str]
) -> None:
    fill(tmp_path, *there)
    assert names_of(tmp_path) == taken


@pytest.mark.parametrize(
    "half",
    [
        [f"{STEM}.bf16-0000{n}-of-00002.safetensors" for n in (1, 2)],
        [f"{STEM}-0000{n}-of-00002.bf16.safetensors" for n in (1, 2)],
    ],
    ids=["precision before the number", "behind it"],
)
def test_a_whole_half_copy_is_read_rather_than_a_broken_full_one(
    tmp_path: Path, half: list[str]
) -> None:
    fill(tmp_path, SHARDS[0], *half)
    assert names_of(tmp_path) == half


def test_shards_that_an_index_or_their_own_numbers_name_are_missed(tmp_path: Path) -> None:
    assert weight_files(tmp_path).missing == ("*.safetensors",)
    index(tmp_path, f"{STEM}.safetensors.index.json", *SHARDS)
    assert weight_files(tmp_path).missing == tuple(SHARDS)
    fill(tmp_path, SHARDS[1])
    assert weight_files(tmp_path).missing == (SHARDS[0],)
    (tmp_path / f"{STEM}.safetensors.index.json").unlink()
    assert weight_files(tmp_path).missing == (SHARDS[0],)
    fill(tmp_path, SHARDS[0])
    assert names_of(tmp_path) == SHARDS


def test_an_index_in_half_precision_names_its_own_shards(tmp_path: Path) -> None:
    half = [f"{STEM}.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index(tmp_path, f"{STEM}.safetensors.index.fp16.json", *half)
    index(tmp_path, f"{STEM}.safetensors.index.json", *SHARDS)
    fill(tmp_path, *half)
    assert names_of(tmp_path) == half


def test_a_broken_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(BackboneError, match=r"index\.json is broken \(TypeError"):
        weight_files(tmp_path)
