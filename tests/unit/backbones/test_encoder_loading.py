"""Encoders are loaded strictly, from safetensors and torch files; else nothing stays behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from explorer.backbones import (
    _build,
    _encoder_published,
    _weights,
    dinov2,
    dinov3,
    loaded,
    registry,
    videomae,
    videoprism,
    vjepa1,
    vjepa2,
)
from explorer.backbones._options import Target
from explorer.clip import Clip
from explorer.errors import BackboneError

MakeClip = Callable[..., Clip]
IDS = ["dinov2-s", "dinov3-s", "vjepa1-h", "vjepa2-l", "videomae-l", "videoprism-b"]
State = dict[str, torch.Tensor]


def change(name: str, folder: Path, work: Callable[[State], None]) -> None:
    """Write a tiny model and let `work` change its tensors."""
    registry.write_tiny(name, folder)
    if name == "vjepa1-h":
        content = torch.load(folder / vjepa1.FILE, weights_only=True)
        work(content["encoder"])
        torch.save(content, folder / vjepa1.FILE)
        return
    state = load_file(folder / "model.safetensors")
    work(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def norm_of(state: State) -> str:
    """The name of a vector in the second block."""
    return next(n for n in sorted(state) if ".1." in n and "norm" in n and n.endswith("weight"))


def drop(state: State) -> None:
    del state[norm_of(state)]


def reshape(state: State) -> None:
    state[norm_of(state)] = torch.zeros(7)


def add(state: State) -> None:
    state[norm_of(state).replace("weight", "extra")] = torch.zeros(7)


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize(
    ("work", "message"),
    [(drop, "missing "), (reshape, r"has shape \(7,\) instead of"), (add, "unexpected ")],
)
def test_a_tensor_too_few_too_many_or_of_another_shape_is_refused_and_nothing_is_kept(
    name: str,
    work: Callable[[State], None],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change(name, tmp_path, work)
    built: list[Any] = []
    build = _build.build_empty
    monkeypatch.setattr(
        _build, "build_empty", lambda *args: built.append(build(*args)) or built[-1]
    )
    with pytest.raises(BackboneError, match=message):
        registry.load(name, target=Target(weights=tmp_path))
    (network,) = built
    assert all(weights.is_meta for weights in network.parameters())


@pytest.mark.parametrize("name", [name for name in IDS if name != "vjepa1-h"])
def test_a_torch_file_gives_the_same_features(
    name: str, tmp_path: Path, make_clip: MakeClip
) -> None:
    for folder in (tmp_path / "new", tmp_path / "old"):
        registry.write_tiny(name, folder)
    stored = tmp_path / "old" / "model.safetensors"
    torch.save(load_file(stored), tmp_path / "old" / "pytorch_model.bin")
    stored.unlink()
    models = [
        registry.load(name, target=Target(weights=tmp_path / part)) for part in ("new", "old")
    ]
    clip = make_clip(2, (64, 64))
    one, other = (model.extract(clip, layers=[1], sigma=0.0)[1].values for model in models)
    np.testing.assert_array_equal(one, other)
    assert models[0].weights_hash != models[1].weights_hash
    loaded.unload(name)


def test_a_configuration_of_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    registry.write_tiny("dinov3-s", tmp_path)
    with pytest.raises(BackboneError, match="of type 'dinov3_vit', not 'dinov2'"):
        registry.load("dinov2-s", target=Target(weights=tmp_path))


PUBLISHED = [
    *((name, {"model_type": "dinov2", **config}) for name, config in dinov2.CONFIGS.items()),
    *((name, {"model_type": "dinov3_vit", **config}) for name, config in dinov3.CONFIGS.items()),
    *((name, {"model_type": "vjepa2", **config}) for name, config in vjepa2.CONFIGS.items()),
    ("videomae-l", {"model_type": "videomae", **videomae.CONFIG}),
    *(
        (name, {"model_type": "videoprism_vision_model", **config})
        for name, config in videoprism.CONFIGS.items()
    ),
]


@pytest.mark.parametrize(("name", "config"), PUBLISHED)
def test_a_published_configuration_gives_the_registered_card(
    name: str, config: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").touch()
    assert registry.card(name, weights=tmp_path) == registry.card(name)


def test_a_configuration_without_sizes_is_refused(tmp_path: Path) -> None:
    registry.write_tiny("vjepa2-l", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vjepa2"}))
    with pytest.raises(BackboneError, match=r"is incomplete .*\(KeyError: 'hidden_size'\)"):
        registry.load("vjepa2-l", target=Target(weights=tmp_path))


@pytest.mark.parametrize("found", ["4.57.1", None])
def test_transformers_missing_or_too_old_is_said_with_what_to_install(
    found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.write_tiny("videomae-l", tmp_path)

    def version(name: str) -> str:
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(_encoder_published.metadata, "version", version)
    with pytest.raises(BackboneError, match=r"needs transformers 5.23 or later.*pip install"):
        registry.load("videomae-l", target=Target(weights=tmp_path))


def test_gated_weights_that_are_missing_say_how_to_get_access(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(_weights, "_cached", lambda card: None)
    with pytest.raises(BackboneError, match=r"accept its licence at https://.*dinov3.*auth login"):
        registry.load("dinov3-b")


def test_weights_at_an_address_are_not_downloaded_but_said_how_to_fetch() -> None:
    with pytest.raises(BackboneError, match=r"in no repository: fetch https://.*by hand into"):
        _weights.download(registry.card("vjepa1-h"))
