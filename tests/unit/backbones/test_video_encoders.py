"""V-JEPA 2 and VideoMAE against a plain forward of transformers' own models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from explorer.backbones import registry, videomae, vjepa2
from explorer.backbones._encoder import TubeletBackbone
from explorer.backbones._options import Target
from explorer.clip import Clip
from explorer.errors import BackboneError

MakeClip = Callable[..., Clip]
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)


class Case:
    """One tiny model: behind `extract`, and as transformers loads it."""

    def __init__(self, name: str, root: Path) -> None:
        import transformers

        library: Any = transformers
        folder = root / name
        registry.write_tiny(name, folder)
        model = registry.load(name, target=Target(weights=folder))
        assert isinstance(model, TubeletBackbone)
        self.model = model
        self.second = name.startswith("vjepa2")
        plain = library.VJEPA2Model if self.second else library.VideoMAEModel
        self.plain = plain.from_pretrained(folder, local_files_only=True).eval()

    def forward(self, clip: Clip, order: list[int]) -> list[torch.Tensor]:
        """Outputs of all blocks and of the final norm."""
        pixels = (clip.frames[order].astype(np.float32) / 255 - MEAN) / DEVIATION
        video = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())[None]
        outputs: list[torch.Tensor] = []
        handles = [
            block.register_forward_hook(
                lambda m, i, out: outputs.append(out[0] if isinstance(out, tuple) else out)
            )
            for block in self.plain.encoder.layer
        ]
        options = {"skip_predictor": True} if self.second else {}
        with torch.inference_mode():
            last = self.plain(video, **options).last_hidden_state
        for handle in handles:
            handle.remove()
        return [*outputs, last]


@pytest.fixture(scope="module", params=["vjepa2-l", "videomae-l"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp("video"))


@pytest.mark.parametrize("count", [15, 16])
def test_features_are_the_blocks_outputs_and_then_the_final_norms(
    case: Case, make_clip: MakeClip, count: int
) -> None:
    clip = make_clip(count, (128, 128))
    order = list(range(16)) if count == 16 else [0, *range(15)]
    found = case.model.extract(clip, layers=range(5), sigma=0.0)
    outputs = case.forward(clip, order)
    assert len(outputs) == len(found) == case.model.card.layers == 5
    for layer, output in enumerate(outputs):
        expected = output[0].reshape(8, 8, 8, -1).half().numpy()
        np.testing.assert_allclose(
            found[layer].values.astype(np.float32),
            expected.astype(np.float32),
            atol=2e-3,
            rtol=2e-3,
        )


@pytest.mark.parametrize("tap", ["query", "key"])
def test_queries_and_keys_are_what_the_block_projects(
    case: Case, make_clip: MakeClip, tap: str
) -> None:
    clip = make_clip(16, (128, 128))
    block = case.plain.encoder.layer[2]
    norm = block.norm1 if case.second else block.layernorm_before
    attention = block.attention if case.second else block.attention.attention
    before = case.forward(clip, list(range(16)))[1]
    with torch.inference_mode():
        expected = getattr(attention, tap)(norm(before))[0].reshape(8, 8, 8, -1)
    found = case.model.extract(clip, layers=[2], sigma=0.0, tap=tap)[2].values
    np.testing.assert_allclose(found.astype(np.float32), expected.numpy(), atol=2e-3, rtol=2e-3)


def test_an_odd_clip_gives_its_first_frame_a_slot_of_its_own(case: Case) -> None:
    frame_to_slot, slot_frames = case.model.slots(5)
    assert frame_to_slot.tolist() == [0, 1, 1, 2, 2]
    assert slot_frames.tolist() == [0, 1, 3]
    frame_to_slot, slot_frames = case.model.slots(6)
    assert frame_to_slot.tolist() == [0, 0, 1, 1, 2, 2]
    assert slot_frames.tolist() == [0, 2, 4]
    assert case.model.passes(5)[0].tolist() == [0, 0, 1, 2, 3, 4]
    assert case.model.passes(6)[0].tolist() == [0, 1, 2, 3, 4, 5]


def test_tokens_of_a_smaller_picture_have_the_places_of_its_rows_and_columns(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = case.model.card
    monkeypatch.setattr(case.model, "card", replace(card, token_grid=(2, 3)))
    places = case.model.places(4, 8)
    assert places is not None
    assert places.tolist() == [0, 1, 2, 8, 9, 10, 64, 65, 66, 72, 73, 74]
    monkeypatch.setattr(case.model, "card", replace(card, token_grid=(2, 9)))
    with pytest.raises(BackboneError, match="8x8 places for tokens, not 2x9"):
        case.model.places(4, 8)


def test_naming_all_places_changes_nothing(
    case: Case, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(4, (128, 128))
    expected = case.model.extract(clip, layers=[3], sigma=0.0)[3].values
    every = torch.arange(2 * 64)
    monkeypatch.setattr(case.model, "places", lambda frames, side: every)
    found = case.model.extract(clip, layers=[3], sigma=0.0)[3].values
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), atol=2e-3)


@pytest.mark.parametrize("name", [*vjepa2.CONFIGS, "videomae-l"])
def test_cards_count_the_published_encoders(name: str) -> None:
    import transformers

    library: Any = transformers
    with torch.device("meta"):
        if name in vjepa2.CONFIGS:
            whole = library.VJEPA2Model(library.VJEPA2Config(**vjepa2.CONFIGS[name]))
            encoder = whole.encoder
        else:
            encoder = library.VideoMAEModel(library.VideoMAEConfig(**videomae.CONFIG))
            whole = encoder
    card = registry.card(name)
    count = sum(weights.numel() for weights in encoder.parameters())
    assert card.parameters == count
    assert (card.layers, card.width) == (
        whole.config.num_hidden_layers + 1,
        whole.config.hidden_size,
    )
    assert card.memory_bytes >= 2 * card.parameters + card.working_bytes
    assert card.source is not None
    if whole is not encoder:
        stored = 4 * sum(weights.numel() for weights in whole.parameters())
        assert card.source.download_bytes == pytest.approx(stored, rel=0.01)
