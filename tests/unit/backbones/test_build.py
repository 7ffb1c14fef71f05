"""Networks are filled strictly, shard by shard, and a refused one keeps no memory."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from weights_left import set_aside

from explorer.backbones import _build, _published, loaded, registry
from explorer.backbones._options import Target
from explorer.errors import BackboneError

NAME = "wan2.1-1.3b"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    registry.write_tiny(NAME, tmp_path / "model")
    yield tmp_path / "model"
    loaded.unload(NAME)


def weights(folder: Path) -> Path:
    (path,) = (folder / "transformer").glob("*.safetensors")
    return path


def test_what_is_loaded_is_what_from_pretrained_loads(folder: Path) -> None:
    import diffusers

    library: Any = diffusers
    expected = library.WanTransformer3DModel.from_pretrained(folder / "transformer")
    model: Any = registry.load(NAME, target=Target(weights=folder))
    ours = dict(model.transformer.state_dict())
    for name, value in expected.state_dict().items():
        assert torch.equal(ours[name], value), name
    for name, value in expected.named_buffers():
        assert torch.equal(model.transformer.get_buffer(name), value), name
    assert not any(p.requires_grad for p in model.transformer.parameters())
    assert not model.transformer.training


def test_parts_that_the_class_wants_in_float32_stay_there(folder: Path) -> None:
    model: Any = registry.load(NAME, target=Target(weights=folder, dtype="bfloat16"))
    kinds = {name: p.dtype for name, p in model.transformer.named_parameters()}
    assert kinds["blocks.0.attn1.to_q.weight"] == torch.bfloat16
    assert kinds["scale_shift_table"] == torch.float32
    assert kinds["blocks.0.norm2.weight"] == torch.float32


def test_several_shards_are_one_model(folder: Path) -> None:
    whole = load_file(weights(folder))
    expected = registry.load(NAME, target=Target(weights=folder)).weights_hash
    loaded.unload(NAME)
    names = sorted(whole)
    weights(folder).unlink()
    for number, part in enumerate((names[::2], names[1::2])):
        path = folder / "transformer" / f"part-{number}.safetensors"
        save_file({name: whole[name] for name in part}, path)
    model: Any = registry.load(NAME, target=Target(weights=folder))
    assert all(torch.equal(model.transformer.state_dict()[name], whole[name]) for name in names)
    assert model.weights_hash != expected, "other files are another key of the store"


def test_torch_files_are_read_as_tensors_only(folder: Path) -> None:
    state, path = load_file(weights(folder)), weights(folder)
    counted = registry.card(NAME, weights=folder).parameters
    path.unlink()
    torch.save(state, path.with_suffix(".bin"))
    assert registry.card(NAME, weights=folder).parameters == counted
    model: Any = registry.load(NAME, target=Target(weights=folder))
    assert all(torch.equal(model.transformer.state_dict()[name], state[name]) for name in state)
    loaded.unload(NAME)
    torch.save({**state, "made by": Path("x")}, path.with_suffix(".bin"))
    with pytest.raises(BackboneError, match="PosixPath"):
        registry.load(NAME, target=Target(weights=folder))


@pytest.mark.parametrize("damage", ["missing", "extra", "shape", "cut", "config", "no weights"])
def test_weights_that_do_not_fit_are_refused_and_let_go(folder: Path, damage: str) -> None:
    path = weights(folder)
    state = load_file(path)
    expected = damage
    if damage == "missing":
        del state["proj_out.bias"]
        expected = r"missing proj_out\.bias"
    elif damage == "extra":
        state["surplus"] = torch.zeros(1)
        expected = "unexpected surplus"
    elif damage == "shape":
        state["proj_out.bias"] = torch.zeros(7)
        expected = r"proj_out\.bias has shape \(7,\) instead of \(16,\)"
    save_file(state, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
        expected = "is broken"
    elif damage == "config":
        (folder / "transformer" / "config.json").write_text("{")
        expected = "cannot be read"
    elif damage == "no weights":
        path.unlink()
        expected = r"no \*\.safetensors"
    del state
    with set_aside() as weights_left:
        with pytest.raises(BackboneError, match=expected):
            registry.load(NAME, target=Target(weights=folder))
        assert weights_left() == []


@pytest.mark.parametrize("shortage", [False, True], ids=["broken", "out of memory"])
def test_an_error_that_is_kept_keeps_none_of_what_was_read(
    shortage: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights(folder)
    first, second = (whole.with_name(f"part-{n}.safetensors") for n in range(2))
    state = load_file(whole)
    whole.unlink()
    names = sorted(state)
    save_file({name: state[name] for name in names[:-9]}, first)
    save_file({name: state[name] for name in names[-9:]}, second)
    del state
    expected = f"{second} is broken"
    if shortage:
        expected = f"{NAME} ran out of memory: `emerge3d backbones {NAME}` lists"
        assign, rest = _build._assign, iter(range(20))

        def full(*parts: Any) -> None:
            if next(rest, None) is None:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            assign(*parts)

        monkeypatch.setattr(_build, "_assign", full)
    else:
        second.write_bytes(b"cut short")
    with set_aside() as weights_left:
        with pytest.raises(BackboneError) as caught:
            registry.load(NAME, target=Target(weights=folder))
        assert str(caught.value).startswith(expected)
        assert weights_left() == []


def test_memory_that_runs_out_in_a_pass_is_said_with_what_helps(folder: Path) -> None:
    model: Any = registry.load(NAME, target=Target(weights=folder))
    with pytest.raises(BackboneError, match="lists the options that need less, and a shorter"):
        with model.hold(lambda: False):
            raise torch.OutOfMemoryError("CUDA out of memory")
    assert not model.lock.locked()
    with pytest.raises(RuntimeError, match="shapes"), model.hold(lambda: False):
        raise RuntimeError("shapes do not match")


def test_building_on_meta_takes_no_memory_for_parameters() -> None:
    def make(width: int) -> torch.nn.Module:
        layer = torch.nn.Linear(width, width)
        layer.register_buffer("table", torch.arange(3.0), persistent=False)
        return layer

    network = _build.build_empty(lambda: make(100_000), lambda: make(1))
    assert network.weight.is_meta
    torch.testing.assert_close(network.table, torch.arange(3.0))


def test_counting_parameters_reads_headers_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(5)}, path, metadata={"format": "pt"})
    assert _published.count_parameters([path]) == 17
    path.write_bytes(b"\xff" * 8)
    with pytest.raises(BackboneError, match="is broken"):
        _published.count_parameters([path])


def test_an_unloaded_model_leaves_memory(folder: Path) -> None:
    model: Any = registry.load(NAME, target=Target(weights=folder))
    gone = weakref.ref(model.transformer)
    loaded.unload(NAME)
    del model
    gc.collect()
    assert gone() is None


def test_a_card_follows_the_configuration_in_the_folder(folder: Path) -> None:
    card = registry.card(NAME, weights=folder)
    config = json.loads((folder / "transformer" / "config.json").read_text())
    assert card.layers == config["num_layers"]
    assert card.width == config["num_attention_heads"] * config["attention_head_dim"]
    assert registry.card(NAME).layers == 30
