"""DINOv2 and DINOv3 against a plain forward of transformers' own models, which read the files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from explorer.backbones import _dino, dinov2, dinov3, registry
from explorer.backbones._dino import DinoBackbone
from explorer.backbones._options import Target
from explorer.clip import Clip
from explorer.errors import BackboneError, Cancelled

MakeClip = Callable[..., Clip]
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)


class Case:
    """One family's tiny model: behind `extract`, and as transformers loads it."""

    def __init__(self, name: str, root: Path) -> None:
        import transformers

        library: Any = transformers
        second = name.startswith("dinov2")
        self.patch, self.special = (14, 1) if second else (16, 5)
        folder = root / name
        registry.write_tiny(name, folder)
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            self.names = set(file.keys())
        model = registry.load(name, target=Target(weights=folder))
        assert isinstance(model, DinoBackbone)
        size = (4 * self.patch, 6 * self.patch)
        model.card = dataclasses.replace(model.card, input_size=size, token_grid=(4, 6))
        self.model = model
        plain = library.Dinov2Model if second else library.DINOv3ViTModel
        self.plain = plain.from_pretrained(folder, local_files_only=True).eval()

    def blocks(self) -> Any:
        return (
            self.plain.encoder.layer if hasattr(self.plain, "encoder") else self.plain.model.layer
        )

    def forward(self, clip: Clip) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Outputs of all blocks with the final norm's last, and queries of all blocks."""
        pixels = (clip.frames.astype(np.float32) / 255 - MEAN) / DEVIATION
        outputs: list[torch.Tensor] = []
        queries: list[torch.Tensor] = []
        handles = []
        for block in self.blocks():
            handles.append(block.register_forward_hook(lambda m, i, output: outputs.append(output)))
            projection = block.attention.q_proj
            handles.append(projection.register_forward_hook(lambda m, i, o: queries.append(o)))
        with torch.inference_mode():
            found = self.plain(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
        for handle in handles:
            handle.remove()
        return [*outputs, found.last_hidden_state], queries

    def grid(self, tokens: torch.Tensor) -> np.ndarray:
        places = tokens[:, self.special :]
        return places.reshape(len(tokens), 4, 6, -1).half().numpy()


@pytest.fixture(scope="module", params=["dinov2-s", "dinov3-s"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp("dino"))


def test_features_are_the_blocks_outputs_and_then_the_final_norms(
    case: Case, make_clip: MakeClip
) -> None:
    clip = make_clip(3, case.model.card.input_size)
    found = case.model.extract(clip, layers=range(5), sigma=0.0)
    outputs, _ = case.forward(clip)
    assert len(outputs) == len(found) == case.model.card.layers == 5
    for layer, output in enumerate(outputs):
        np.testing.assert_allclose(
            found[layer].values.astype(np.float32),
            case.grid(output).astype(np.float32),
            atol=2e-3,
            rtol=2e-3,
        )
    assert case.model.card.default_cell == (4, 0.0)


def test_queries_are_read_before_rotation_and_without_special_tokens(
    case: Case, make_clip: MakeClip
) -> None:
    clip = make_clip(2, case.model.card.input_size)
    found = case.model.extract(clip, layers=[1, 3], sigma=0.0, tap="query")
    queries = case.forward(clip)[1]
    for layer, features in found.items():
        np.testing.assert_allclose(
            features.values.astype(np.float32),
            case.grid(queries[layer]).astype(np.float32),
            atol=2e-3,
        )


def test_the_final_norm_has_no_query(case: Case, make_clip: MakeClip) -> None:
    clip = make_clip(1, case.model.card.input_size)
    with pytest.raises(BackboneError, match="layer 4 .* is its final norm .* choose 0 to 3"):
        case.model.extract(clip, layers=[1, 4], sigma=0.0, tap="query")


def test_a_long_clip_goes_through_in_chunks_and_can_stop_between_them(
    case: Case, make_clip: MakeClip
) -> None:
    clip = make_clip(_dino.CHUNK + 3, case.model.card.input_size)
    batches: list[int] = []
    handle = case.model.blocks[0].register_forward_pre_hook(
        lambda module, inputs: batches.append(len(inputs[0]))
    )
    found = case.model.extract(clip, layers=[2], sigma=0.0)[2].values
    assert batches == [_dino.CHUNK, 3]
    answers = iter([False] * 5 + [True])  # lock, chunk and three blocks; then the second chunk
    with pytest.raises(Cancelled):
        case.model.extract(clip, layers=[2], sigma=0.0, should_stop=lambda: next(answers))
    handle.remove()
    assert batches == [_dino.CHUNK, 3, _dino.CHUNK]
    np.testing.assert_allclose(
        found.astype(np.float32), case.grid(case.forward(clip)[0][2]).astype(np.float32), atol=2e-3
    )


def test_the_files_have_the_published_names(case: Case) -> None:
    second = case.special == 1
    expected = (
        {"encoder.layer.3.attention.attention.query.weight", "encoder.layer.0.mlp.weights_in.bias"}
        if second
        else {"layer.3.attention.q_proj.weight", "embeddings.register_tokens"}
    )
    assert expected <= case.names


@pytest.mark.parametrize("name", [*dinov2.CONFIGS, *dinov3.CONFIGS])
def test_cards_count_the_published_models(name: str) -> None:
    import transformers

    library: Any = transformers
    with torch.device("meta"):
        if name in dinov2.CONFIGS:
            model = library.Dinov2Model(library.Dinov2Config(**dinov2.CONFIGS[name]))
        else:
            model = library.DINOv3ViTModel(library.DINOv3ViTConfig(**dinov3.CONFIGS[name]))
    card = registry.card(name)
    assert card.parameters == sum(weights.numel() for weights in model.parameters())
    assert (card.layers, card.width) == (
        model.config.num_hidden_layers + 1,
        model.config.hidden_size,
    )
    assert card.token_grid == (30, 52)
    assert card.memory_bytes >= 2 * card.parameters + card.working_bytes
