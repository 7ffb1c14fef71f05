"""Finding, fetching and identifying published weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from explorer.backbones import _weights, registry
from explorer.backbones._options import Source
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
    assert not _weights.is_here(card)


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
    assert _weights.is_here(registry.card("rgb"))


def test_half_a_download_is_not_found(
    card: BackboneCard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text("{}")
    asked: list[Any] = []

    def snapshot(repo: str, **options: Any) -> str:
        asked.append((repo, options["local_files_only"]))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert not _weights.is_here(card)
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    assert _weights.find_weights(card) == tmp_path
    assert asked == [("someone/some-model", True)] * 2, "nothing may be fetched unasked"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GatedRepoError", "accept its licence at https://huggingface.co/someone/some-model"),
        ("RepositoryNotFoundError", "hf auth login"),
        ("OfflineModeIsEnabled", "HF_HUB_OFFLINE is set"),
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
