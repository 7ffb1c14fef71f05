"""Fast3R and VGGT as backbones, against their networks run by hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from explorer.backbones import _build, _fast3r_published, _vggt_published, _views, registry
from explorer.backbones._options import Target
from explorer.backbones.base import Backbone
from explorer.clip import Clip
from explorer.errors import BackboneError
from explorer.nets.fast3r import Fast3R, Fast3RConfig
from explorer.nets.rope import grid_rotation
from explorer.nets.vggt import Aggregator, VGGTConfig

MakeClip = Callable[..., Clip]
SIZES = {"fast3r": (48, 80), "vggt-1b": (42, 70)}
GRID = (3, 5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("views")
    for name in SIZES:
        registry.write_tiny(name, root / name)
    return {name: root / name for name in SIZES}


def load(name: str, folder: Path, **changes: Any) -> Any:
    """The backbone of a folder for small pictures."""
    module = {"fast3r": _fast3r_published, "vggt-1b": _vggt_published}[name]
    card = module.adapt(registry.card(name), folder)
    card = dataclasses.replace(card, input_size=SIZES[name], token_grid=GRID)
    return module.load(card, Target(weights=folder, **changes))


def extract(model: Backbone, clip: Clip, **changes: Any) -> dict[int, np.ndarray]:
    found = model.extract(clip, layers=range(model.card.layers), sigma=0.3, **changes)
    return {layer: features.values for layer, features in found.items()}


def check(found: np.ndarray, expected: torch.Tensor) -> None:
    np.testing.assert_array_equal(found, expected.reshape(found.shape).half().numpy())


def pixels(clip: Clip) -> torch.Tensor:
    return torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def test_fast3r_gives_the_published_list_and_the_encoder_before_it(
    folders: dict[str, Path], make_clip: MakeClip
) -> None:
    model, clip = load("fast3r", folders["fast3r"]), make_clip(3, SIZES["fast3r"])
    network: Fast3R = model.transformer
    views = 2 * pixels(clip) - 1
    gathered = network(views[None], view_ids=torch.tensor([[0, 1, 2]]))
    found = extract(model, clip)
    assert sorted(found) == [0, 1, 2, 3, 4]
    for entry, layer in enumerate([1, 2, 3, 4]):
        check(found[layer], gathered[entry])
    encoder = network.encoder
    x = encoder.patch_embed(views).flatten(2).transpose(1, 2)
    check(found[0], encoder.enc_blocks[0](x, grid_rotation(GRID, 16, start=0)))


@torch.inference_mode()
def test_queries_and_keys_of_fast3r_are_projections_of_the_normed_tokens(
    folders: dict[str, Path], make_clip: MakeClip
) -> None:
    model, clip = load("fast3r", folders["fast3r"]), make_clip(3, SIZES["fast3r"])
    block = model.blocks[3]  # the second of the decoder
    x = torch.from_numpy(extract(model, clip)[2]).float().reshape(1, 45, 32)
    query, key, _ = block.attn.qkv(block.norm1(x)).chunk(3, dim=-1)
    for tap, expected in (("query", query), ("key", key)):
        values = model.extract(clip, layers=[3], sigma=0.0, tap=tap)[3].values
        np.testing.assert_allclose(values, expected.reshape(values.shape), atol=4e-3)


@torch.inference_mode()
def test_a_layer_of_vggt_is_the_frame_output_beside_the_global_output(
    folders: dict[str, Path], make_clip: MakeClip
) -> None:
    model, clip = load("vggt-1b", folders["vggt-1b"]), make_clip(3, SIZES["vggt-1b"])
    network: Aggregator = model.transformer
    taps = network(pixels(clip)[None])
    found = extract(model, clip)
    assert sorted(found) == [0, 1, 2]
    for layer, tap in enumerate(taps):
        check(found[layer], tap[0, :, 5:])
    assert found[2].shape == (3, 3, 5, 64)


@torch.inference_mode()
def test_queries_of_vggt_are_the_normed_ones_of_the_global_block(
    folders: dict[str, Path], make_clip: MakeClip
) -> None:
    model, clip = load("vggt-1b", folders["vggt-1b"]), make_clip(2, SIZES["vggt-1b"])
    network: Aggregator = model.transformer
    taps = network(pixels(clip)[None])
    rotation = grid_rotation(GRID, 8, special=5)
    within = network.frame_blocks[1](taps[0][0, :, :, 32:], rotation)
    block = network.global_blocks[1]
    qkv = block.attn.qkv(block.norm1(within.reshape(1, 40, 32))).reshape(2, 20, 3, 4, 8)
    for index, (tap, norm) in enumerate([("query", "q_norm"), ("key", "k_norm")]):
        weights = block.attn.get_submodule(norm)
        heads = F.layer_norm(qkv[:, 5:, index], (8,), weights.weight, weights.bias)
        values = model.extract(clip, layers=[1], sigma=0.0, tap=tap)[1].values
        np.testing.assert_allclose(values, heads.reshape(2, 3, 5, 32), atol=2e-3)


@pytest.mark.parametrize("name", SIZES)
def test_frames_see_each_other(name: str, folders: dict[str, Path], make_clip: MakeClip) -> None:
    model = load(name, folders[name])
    clip = make_clip(3, SIZES[name])
    changed = dataclasses.replace(clip, frames=clip.frames.copy())
    changed.frames[2] = 255 - changed.frames[2]
    one, other = extract(model, clip), extract(model, changed)
    last = model.card.layers - 1
    assert (one[last][0] != other[last][0]).any()
    if name == "fast3r":
        np.testing.assert_array_equal(one[0][0], other[0][0])


@pytest.mark.parametrize("name", SIZES)
def test_every_frame_is_a_slot(name: str, folders: dict[str, Path], make_clip: MakeClip) -> None:
    features = load(name, folders[name]).extract(
        make_clip(4, SIZES[name]), layers=[0], sigma=0.7, seed=3
    )[0]
    assert features.frame_to_slot.tolist() == features.slot_frames.tolist() == [0, 1, 2, 3]
    assert (features.sigma, features.timestep, features.official_index) == (0.0, 0.0, 999)


@pytest.mark.parametrize("name", SIZES)
def test_bfloat16_stays_near_float32(
    name: str, folders: dict[str, Path], make_clip: MakeClip
) -> None:
    clip = make_clip(2, SIZES[name])
    full = extract(load(name, folders[name]), clip)
    half = extract(load(name, folders[name], dtype="bfloat16"), clip)
    for layer, values in full.items():
        error = np.abs(half[layer].astype(float) - values).mean()
        assert 0 < error < 0.05 * values.astype(float).std()


@pytest.mark.parametrize("name", SIZES)
def test_a_torch_file_loads_like_safetensors(
    name: str, folders: dict[str, Path], tmp_path: Path, make_clip: MakeClip
) -> None:
    (tmp_path / "config.json").write_bytes((folders[name] / "config.json").read_bytes())
    torch.save(load_file(folders[name] / "model.safetensors"), tmp_path / "model.pt")
    clip = make_clip(2, SIZES[name])
    expected = extract(load(name, folders[name]), clip)
    found = extract(load(name, tmp_path), clip)
    for layer, values in expected.items():
        np.testing.assert_array_equal(found[layer], values)


def test_a_torch_file_with_other_objects_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes((folders["vggt-1b"] / "config.json").read_bytes())
    torch.save({"x": Path("x")}, tmp_path / "model.pt")
    with pytest.raises(BackboneError, match="holds Python objects besides tensors"):
        load("vggt-1b", tmp_path)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("fault", ["missing", "unexpected", "shape", "foreign"])
def test_a_file_that_does_not_fit_is_refused_and_nothing_of_it_stays(
    name: str,
    fault: str,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "config.json").write_bytes((folders[name] / "config.json").read_bytes())
    state = load_file(folders[name] / "model.safetensors")
    used = [key for key in state if "head" not in key]
    if fault == "missing":
        del state[used[7]]
    elif fault == "unexpected":
        state[f"{used[7]}.more"] = torch.zeros(2)
    elif fault == "foreign":
        state["elsewhere." + used[7].removeprefix("aggregator.")] = torch.zeros(2)
    else:
        state[used[7]] = torch.zeros(1, 1, 1)
    save_file(state, tmp_path / "model.safetensors")
    built: list[torch.nn.Module] = []
    empty = _build.build_empty

    def remember(*parts: Any) -> Any:
        built.append(empty(*parts))
        return built[-1]

    monkeypatch.setattr(_build, "build_empty", remember)
    message = {"shape": "has shape"}.get(fault, "unexpected" if fault != "missing" else fault)
    with pytest.raises(BackboneError, match=message):
        load(name, tmp_path)
    assert all(parameter.is_meta for parameter in built[0].parameters())


def test_a_folder_without_weights_says_what_it_needs(tmp_path: Path) -> None:
    for module in (_fast3r_published, _vggt_published):
        with pytest.raises(BackboneError, match=r"no model\.safetensors or model\.pt"):
            module.hashes(Target(weights=tmp_path))


def test_without_a_configuration_the_released_sizes_are_meant(tmp_path: Path) -> None:
    assert _fast3r_published.sizes(tmp_path) == _vggt_published.sizes(tmp_path) == {}
    published = {"img_size": 518, "patch_size": 14, "embed_dim": 1024}
    (tmp_path / "config.json").write_text(json.dumps(published))
    assert VGGTConfig(**_vggt_published.sizes(tmp_path)) == VGGTConfig()


def test_two_widths_in_one_fast3r_are_refused(tmp_path: Path) -> None:
    config = {"encoder_args": {"embed_dim": 64}, "decoder_args": {"embed_dim": 48}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="layers would differ"):
        _fast3r_published.sizes(tmp_path)


@pytest.mark.parametrize(
    ("name", "names", "make", "prefix", "unused"),
    [
        ("fast3r", "fast3r-vitl-512", lambda: Fast3R(Fast3RConfig()), "", _fast3r_published.HEADS),
        (
            "vggt-1b",
            "vggt-1b",
            lambda: Aggregator(VGGTConfig()),
            _vggt_published.PREFIX,
            _vggt_published.HEADS,
        ),
    ],
)
def test_the_names_of_the_released_file_fill_the_network_that_the_card_describes(
    golden: Path, name: str, names: str, make: Any, prefix: str, unused: tuple[str, ...]
) -> None:
    facts = json.loads((golden / f"{names}-names.json").read_text())["tensors"]
    tensors = ((key, torch.empty(shape, device="meta")) for key, shape in facts.items())
    network = _build.fill(
        _build.build_empty(make),
        _views._used(tensors, prefix, unused),
        device="meta",
        dtype="bfloat16",
        where=golden,
    )
    card = registry.card(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == card.parameters
    if name == "fast3r":
        assert len(network.blocks) == card.layers
    else:
        assert len(network.global_blocks) == card.layers
