"""The page on backbones: its table is the cards', its example a backbone that loads and runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from printed_commands import REPOSITORY, blocks

from explorer.backbones import registry
from explorer.backbones._options import Target
from explorer.clip import Clip, clip_from_frames
from explorer.errors import BackboneError

PAGE = REPOSITORY / "docs" / "backbones.md"


def test_the_released_procedures_on_the_page_are_those_on_the_cards() -> None:
    printed = dict(re.findall(r"^\| `([\w.-]+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
    published = {card.id: card.official for card in registry.cards() if card.source is not None}
    assert {name: printed.get(name) for name in published} == published


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's own backbone, registered for one test."""
    pytest.importorskip("transformers")
    (code,) = (
        block.text
        for block in blocks(PAGE)
        if block.language == "python" and "@register" in block.text
    )
    assert code.count("\n") < 60, "the page promises a short file"
    registry.cards()
    for name in ("_entries", "_loaded"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    module = type(sys)("vit")
    exec(compile(code, str(PAGE), "exec"), vars(module))
    return "vit-b"


def moving(count: int, height: int, width: int) -> Clip:
    frames = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return clip_from_frames(frames, name="noise")


def test_the_pages_own_backbone_loads_its_published_names_and_sees_a_picture(
    example: str, tmp_path: Path
) -> None:
    registry.write_tiny(example, tmp_path)
    model = registry.load(example, target=Target(weights=tmp_path))
    clip = moving(3, *model.card.input_size)
    found = model.extract(clip, layers=[0, 1, 3], sigma=0.0)
    assert found.keys() == {0, 1, 3}
    assert {each.values.shape for each in found.values()} == {(3, *model.card.token_grid, 24)}
    assert all(np.isfinite(each.values).all() for each in found.values())
    alone = model.extract(clip, layers=[1], sigma=0.0)
    assert np.array_equal(alone[1].values, found[1].values)
    assert not np.array_equal(found[1].values, found[3].values)


def test_the_pages_own_backbone_refuses_a_file_with_a_tensor_missing(
    example: str, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    registry.write_tiny(example, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    weights = load_file(path)
    lost = next(name for name in weights if "attention" in name)
    save_file({name: value for name, value in weights.items() if name != lost}, path)
    with pytest.raises(BackboneError, match="missing"):
        registry.load(example, target=Target(weights=tmp_path))
