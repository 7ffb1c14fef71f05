"""Finding, fetching and identifying published weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from explorer.backbones import _published, _weights, registry
from explorer.backbones._options import Source, Target
from explorer.backbones.base import BackboneCard
from explorer.errors import BackboneError

SOURCE = Source("someone/some-model", ("transformer/*", "vae/*"), 3_000_000_000, gated=True)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> BackboneCard:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("EMERGE3D_WEIGHTS", raising=False)
    return dataclasses.replace(registry.card("toy-wan"), id="some", source=SOURCE)


def test_missing_weights_are_answered_with_every_way_to_get_them(
    card: BackboneCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_weights, "_cached", lambda card: None)
    with pytest.raises(BackboneError) as caught:
        _weights.find_weights(card)
    for part in ("someone/some-model", "3.0 GB", "emerge3d backbones some --download", "--weights"):
        assert part in str(caught.value)


def test_a_named_folder_comes_before_the_variable_and_that_before_the_hubs_cache(
    card: BackboneCard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cached, root, given = (tmp_path / name for name in ("cached", "root", "given"))
    monkeypatch.setattr(_weights, "_cached", lambda card: cached)
    assert _weights.find_weights(card) == cached
    (root / "some").mkdir(parents=True)
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(root))
    assert _weights.find_weights(card) == root / "some"
    given.mkdir()
    assert _weights.find_weights(card, given) == given
    with pytest.raises(BackboneError, match="is not a folder"):
        _weights.find_weights(card, tmp_path / "nowhere")


def test_what_comes_with_the_package_takes_no_other_weights(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="comes with the package"):
        _weights.find_weights(registry.card("rgb"), tmp_path)
    with pytest.raises(BackboneError, match="nothing to download"):
        _weights.download(registry.card("rgb"))
    assert registry.is_here("rgb")


def in_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[Any]:
    """Let the hub's cache hold every repository in one folder; what was asked of it."""
    import huggingface_hub

    asked: list[Any] = []

    def snapshot(repo: str, **options: Any) -> str:
        asked.append((repo, options["local_files_only"]))
        return str(folder)

    monkeypatch.delenv("EMERGE3D_WEIGHTS", raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return asked


def test_a_download_without_a_part_is_not_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = in_cache(monkeypatch, tmp_path)
    registry.write_tiny("wan2.1-1.3b", tmp_path)
    assert registry.is_here("wan2.1-1.3b")
    (tmp_path / "vae" / "config.json").unlink()
    assert not registry.is_here("wan2.1-1.3b")
    with pytest.raises(BackboneError) as caught:
        registry.fitting_card("wan2.1-1.3b", Target())
    for part in ("is not whole", "emerge3d backbones wan2.1-1.3b --download", "no config.json in"):
        assert part in str(caught.value)
    assert set(asked) == {("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", True)}, "nothing may be fetched"


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_an_interrupted_download_lacks_shards_and_is_not_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, part: str
) -> None:
    in_cache(monkeypatch, tmp_path)
    registry.write_tiny("wan2.1-1.3b", tmp_path)
    stem = "diffusion_pytorch_model"
    if part == "text_encoder":
        shutil.rmtree(tmp_path / "prompts")
        shutil.copytree(tmp_path / "vae", tmp_path / part)
        (tmp_path / "tokenizer").mkdir()
        (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
        assert registry.is_here("wan2.1-1.3b"), "an encoder is there instead of an embedding"
    whole = tmp_path / part / f"{stem}.safetensors"
    shards = [whole.with_name(f"{stem}-0000{n}-of-00002.safetensors") for n in (1, 2)]
    names = {"weight_map": {"a": shards[0].name, "b": shards[1].name}}
    (tmp_path / part / f"{stem}.safetensors.index.json").write_text(json.dumps(names))
    whole.rename(shards[0])
    assert not registry.is_here("wan2.1-1.3b")
    for target in (Target(), Target(weights=tmp_path)):
        with pytest.raises(BackboneError, match=f"(lack|lacks) {shards[1].name}"):
            registry.load("wan2.1-1.3b", target=target)


def test_what_is_here_is_found_without_reading_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    in_cache(monkeypatch, tmp_path)
    registry.write_tiny("mochi", tmp_path)
    monkeypatch.setattr(_weights, "fingerprint", None)
    monkeypatch.setattr(_published, "fingerprint", None)
    assert registry.is_here("mochi")
    shutil.rmtree(tmp_path / "prompts")
    assert registry.is_here("mochi"), "its empty prompt needs no embedding"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GatedRepoError", "accept its licence at https://huggingface.co/someone/some-model"),
        ("RepositoryNotFoundError", "hf auth login"),
        ("OSError", "hf download someone/some-model --local-dir DIR"),
    ],
)
def test_a_failed_download_says_what_to_do(
    card: BackboneCard, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    kind: Any = OSError if name == "OSError" else getattr(errors, name)

    def fail(*_: Any, **__: Any) -> str:
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(BackboneError) as caught:
        _weights.download(card)
    assert expected in str(caught.value)


def test_a_download_without_network_on_purpose_says_so(
    card: BackboneCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError) as caught:
        _weights.download(card)  # the hub's library itself: it names another reason
    expected = "HF_HUB_OFFLINE is set, so nothing is fetched: unset it, or on a machine with access"
    assert str(caught.value).startswith(expected)
    assert "hf download someone/some-model --local-dir DIR" in str(caught.value)


def test_a_part_of_a_download_is_not_said_to_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    from explorer.cli import main

    monkeypatch.delenv("EMERGE3D_WEIGHTS", raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    registry.write_tiny("wan2.1-1.3b", tmp_path)
    assert main(["backbones", "wan2.1-1.3b", "--download"]) == 0
    assert f"wan2.1-1.3b is in {tmp_path}" in capsys.readouterr().err
    (tmp_path / "vae" / "config.json").unlink()
    assert main(["backbones", "wan2.1-1.3b", "--download"]) == 2
    assert "is not whole" in capsys.readouterr().err


def test_a_fingerprint_sees_names_sizes_and_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_weights, "_WHOLE", 1000)
    monkeypatch.setattr(_weights, "_BLOCK", 10)
    small, large = tmp_path / "a", tmp_path / "b"
    small.write_bytes(b"x" * 100)
    large.write_bytes(bytes(5000))
    both = [small, large]
    first = _weights.fingerprint(both, tmp_path)
    assert _weights.fingerprint(both[::-1], tmp_path) == first
    for change in (0, 4999):
        content = bytearray(5000)
        content[change] = 1
        large.write_bytes(content)
        assert _weights.fingerprint(both, tmp_path) != first
    large.write_bytes(bytes(5001))
    assert _weights.fingerprint(both, tmp_path) != first
    large.write_bytes(bytes(5000))
    small.write_bytes(b"x" * 99 + b"y")
    assert _weights.fingerprint(both, tmp_path) != first
    small.write_bytes(b"x" * 100)
    assert _weights.fingerprint(both, tmp_path) == first
    assert _weights.fingerprint([large, small.rename(tmp_path / "c")], tmp_path) != first
