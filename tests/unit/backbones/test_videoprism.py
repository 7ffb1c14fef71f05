"""VideoPrism against a plain forward of transformers' own model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from explorer.backbones import _videoprism, _weights, loaded, registry, videoprism
from explorer.backbones._options import Target
from explorer.clip import Clip

MakeClip = Callable[..., Clip]
NAME, SIZE, GRID, SPATIAL, TEMPORAL = "videoprism-b", (108, 108), (6, 6), 3, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videoprism")
    registry.write_tiny(NAME, folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    found = registry.load(NAME, target=Target(weights=folder))
    yield found
    loaded.unload(NAME)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    import transformers

    library: Any = transformers
    return library.VideoPrismVisionModel.from_pretrained(folder, local_files_only=True).eval()


def pixels(clip: Clip) -> torch.Tensor:
    return torch.from_numpy(clip.frames.astype(np.float32) / 255).permute(0, 3, 1, 2)[None]


def forward(plain: Any, video: torch.Tensor, modules: list[Any], **options: Any) -> list[Any]:
    """Outputs of modules, and then the model's."""
    outputs: list[torch.Tensor] = []
    handles = [
        module.register_forward_hook(lambda m, i, out: outputs.append(out)) for module in modules
    ]
    with torch.inference_mode():
        last = plain(video, **options).last_hidden_state
    for handle in handles:
        handle.remove()
    return [*outputs, last]


def by_frame(output: torch.Tensor, layer: int, frames: int) -> np.ndarray:
    """(T, h, w, C) of a block's output: (T, h*w, C) within frames, (h*w, T, C) over time."""
    if SPATIAL <= layer < SPATIAL + TEMPORAL:
        output = torch.stack([output[:, time] for time in range(frames)])
    return output.reshape(frames, *GRID, -1).numpy()


@pytest.mark.parametrize("count", [1, 7, 16])
def test_features_are_the_blocks_outputs_and_then_the_final_norms(
    model: Any, plain: Any, make_clip: MakeClip, count: int
) -> None:
    clip = make_clip(count, SIZE)
    blocks = [*plain.spatial_layers, *plain.temporal_layers]
    outputs = forward(plain, pixels(clip), blocks, interpolate_pos_encoding=True)
    assert model.card.layers == len(outputs) == SPATIAL + TEMPORAL + 1
    found = model.extract(clip, layers=range(len(outputs)), sigma=0.0)
    for layer, output in enumerate(outputs):
        expected = by_frame(output, layer, count)
        np.testing.assert_allclose(found[layer].values, expected, atol=2e-3, rtol=2e-3)
    assert found[0].frame_to_slot.tolist() == list(range(count))


@pytest.mark.parametrize("tap", ["query", "key"])
def test_queries_and_keys_are_what_the_blocks_project(
    model: Any, plain: Any, make_clip: MakeClip, tap: str
) -> None:
    clip, name = make_clip(5, SIZE), {"query": "q_proj", "key": "k_proj"}[tap]
    blocks = [*plain.spatial_layers, *plain.temporal_layers]
    modules = [getattr(block.attention, name) for block in blocks]
    outputs = forward(plain, pixels(clip), modules, interpolate_pos_encoding=True)[:-1]
    found = model.extract(clip, layers=range(SPATIAL + TEMPORAL), sigma=0.0, tap=tap)
    for layer, output in enumerate(outputs):
        expected = by_frame(output, layer, 5)
        np.testing.assert_allclose(found[layer].values, expected, atol=2e-3, rtol=2e-3)


def test_the_positions_of_a_full_clip_are_the_stored_ones(
    model: Any, plain: Any, make_clip: MakeClip
) -> None:
    clip = make_clip(16, SIZE)
    (exact,) = forward(plain, pixels(clip), [], interpolate_pos_encoding=False)
    found = model.extract(clip, layers=[SPATIAL + TEMPORAL], sigma=0.0)[SPATIAL + TEMPORAL].values
    expected = exact.reshape(16, *GRID, -1).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", videoprism.CONFIGS)
def test_the_cards_count_the_published_encoders(name: str) -> None:
    import transformers

    library: Any = transformers
    config = library.VideoPrismVisionConfig(**videoprism.CONFIGS[name])
    with torch.device("meta"):
        network = library.VideoPrismVisionModel(config)
    card = registry.card(name)
    assert card.parameters == sum(weights.numel() for weights in network.parameters())
    assert card.parameters == {"videoprism-b": 114_365_184, "videoprism-l": 353_965_056}[name]
    assert card.layers == len(network.spatial_layers) + len(network.temporal_layers) + 1


def test_names_in_the_file_are_those_of_transformers_converted_files(folder: Path) -> None:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        stored = set(file.keys())
    names = (
        "spatial_embeddings.patch_embeddings.projection.weight",
        "spatial_embeddings.position_embeddings",
        "temporal_embeddings.position_embeddings",
        "layernorm1.weight",
        "layernorm2.bias",
        "spatial_layers.0.attention.q_proj.weight",
        "temporal_layers.1.mlp.fc2.bias",
    )
    assert set(names) <= stored
    network: Any = _videoprism.VideoPrismNetwork
    assert stored == set(network(_plain_model(folder)).state_dict())


def _plain_model(folder: Path) -> Any:
    import transformers

    library: Any = transformers
    return library.VideoPrismVisionModel(library.VideoPrismVisionConfig.from_pretrained(folder))


def test_its_weights_are_taken_by_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def fetch(repo: str, **options: Any) -> str:
        asked.append((repo, options["revision"]))
        return "/nowhere"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    card = registry.card(NAME)
    _weights.download(card)
    _weights._cached(card.source)  # type: ignore[arg-type]
    repo, revision = asked[0]
    assert repo == "google/videoprism-base-f16r288"
    assert len(revision) == 40
    assert asked == [(repo, revision)] * 2
