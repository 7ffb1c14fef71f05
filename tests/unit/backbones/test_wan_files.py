from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from explorer.backbones import _wan_files
from explorer.errors import BackboneError


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny transformer that a test may break."""
    return Path(shutil.copytree(tiny_folder / "transformer", tmp_path / "transformer"))


def weights(folder: Path) -> Path:
    return folder / "diffusion_pytorch_model.safetensors"


def test_weights_are_float16_on_disk_and_float32_in_memory(tiny_folder: Path) -> None:
    stored = load_file(weights(tiny_folder / "transformer"))
    assert {value.dtype for value in stored.values()} == {torch.float16}
    model = _wan_files.load_transformer(tiny_folder / "transformer", device="cpu", dtype="float32")
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, stored[name].float())


def test_strict_loading_gives_what_from_pretrained_gives(tiny_folder: Path) -> None:
    from diffusers import AutoencoderKLWan

    ours = _wan_files.load_vae(tiny_folder / "vae", device="cpu")
    theirs = AutoencoderKLWan.from_pretrained(
        tiny_folder / "vae", torch_dtype=torch.float32, local_files_only=True
    )
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in ours.state_dict().items())
    assert ours.config.latents_mean == theirs.config.latents_mean


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sensitive_parts_stay_float32_in_half_precision(tiny_folder: Path, dtype: str) -> None:
    model = _wan_files.load_transformer(tiny_folder / "transformer", device="cpu", dtype=dtype)
    assert model.proj_out.weight.dtype == getattr(torch, dtype)
    assert model.scale_shift_table.dtype == torch.float32
    assert model.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32


@pytest.mark.parametrize("name", ["config.json", "diffusion_pytorch_model.safetensors"])
def test_missing_files_are_named_with_the_way_out(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BackboneError, match=r"weights are missing.*EMERGE3D_ASSETS"):
        _wan_files.load_transformer(folder, device="cpu", dtype="float32")


def test_a_truncated_file_is_refused(folder: Path) -> None:
    content = weights(folder).read_bytes()
    weights(folder).write_bytes(content[: len(content) // 2])
    with pytest.raises(BackboneError, match="broken or do not fit"):
        _wan_files.load_transformer(folder, device="cpu", dtype="float32")


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fit_the_configuration_are_refused(folder: Path, change: str) -> None:
    state = load_file(weights(folder))
    if change == "missing":
        del state["proj_out.bias"]
    elif change == "unexpected":
        state["extra"] = torch.zeros(1)
    else:
        state["proj_out.bias"] = torch.zeros(3)
    save_file(state, weights(folder))
    with pytest.raises(BackboneError, match="broken or do not fit"):
        _wan_files.load_transformer(folder, device="cpu", dtype="float32")


def test_a_failed_load_leaves_no_weights_in_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import WanTransformer3DModel

    made: list[weakref.ref[torch.nn.Module]] = []
    original = WanTransformer3DModel.from_config

    def remember(config: object) -> object:
        model = original(config)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr(WanTransformer3DModel, "from_config", remember)
    state = load_file(weights(folder))
    save_file({**state, "extra": torch.zeros(1)}, weights(folder))
    with pytest.raises(BackboneError) as error:
        _wan_files.load_transformer(folder, device="cpu", dtype="float32")
    gc.collect()
    assert len(made) == 1
    assert made[0]() is None
    assert error.value.__context__ is None


def test_an_unknown_dtype_or_device_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(BackboneError, match=r"dtype 'int3'.*float32"):
        _wan_files.load_transformer(tiny_folder / "transformer", device="cpu", dtype="int3")
    with pytest.raises(BackboneError, match=r"device 'tpu9'.*choose cpu or auto"):
        _wan_files.load_vae(tiny_folder / "vae", device="tpu9")


def test_the_hash_follows_weights_and_configuration_but_not_the_path(
    tiny_folder: Path, folder: Path
) -> None:
    before = _wan_files.files_hash(tiny_folder / "transformer")
    assert _wan_files.files_hash(folder) == before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eps": 1e-5}))
    changed = _wan_files.files_hash(folder)
    assert changed != before
    state = load_file(weights(folder))
    state["proj_out.bias"][0] += 1
    save_file(state, weights(folder))
    assert _wan_files.files_hash(folder) not in (before, changed)
