"""The page on backbones: its table is the cards', its example a backbone that loads and runs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from printed_commands import REPOSITORY, blocks

from explorer import plugins
from explorer.backbones import registry
from explorer.backbones._options import Target
from explorer.clip import Clip, clip_from_frames
from explorer.errors import BackboneError

PAGE = REPOSITORY / "docs" / "backbones.md"


def test_the_released_procedures_on_the_page_are_those_on_the_cards() -> None:
    printed = dict(re.findall(r"^\| `([\w.-]+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
    published = {card.id: card.official for card in registry.cards() if card.source is not None}
    assert {name: printed.get(name) for name in published} == published


@pytest.fixture(params=["file", "package"])
def example(
    request: pytest.FixtureRequest,
    no_plugins_yet: None,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The page's own backbone, found in both ways that the page shows."""
    folder = tmp_path_factory.mktemp("outside")
    (code,) = (
        block.text
        for block in blocks(PAGE)
        if block.language == "python" and "@register" in block.text
    )
    assert code.count("\n") < 60, "the page promises a short file"
    (folder / "vit.py").write_text(code)
    if request.param == "file":
        (setting,) = {
            found
            for block in blocks(PAGE)
            for found in re.findall(r"^EMERGE3D_PLUGINS=(\S+)", block.text, re.MULTILINE)
        }
        monkeypatch.setenv("EMERGE3D_PLUGINS", str(folder / setting))
    else:
        install(folder)
        monkeypatch.syspath_prepend(folder)
    return "vit-b"


def install(folder: Path) -> None:
    """What an installer makes of the page's pyproject.toml, beside the module that it names."""
    (text,) = (block.text for block in blocks(PAGE) if block.language == "toml")
    written = tomllib.loads(text)
    project = written["project"]
    assert [f"{name}.py" for name in written["tool"]["setuptools"]["py-modules"]] == [
        path.name for path in folder.iterdir()
    ]
    ((group, points),) = project["entry-points"].items()
    information = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    information.mkdir()
    lines = [f"[{group}]", *(f"{name} = {module}" for name, module in points.items())]
    (information / "entry_points.txt").write_text("\n".join(lines))
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )


def moving(count: int, height: int, width: int) -> Clip:
    frames = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return clip_from_frames(frames, name="noise")


def test_the_pages_own_backbone_loads_its_published_names_and_sees_a_picture(
    example: str, tmp_path: Path
) -> None:
    registry.write_tiny(example, tmp_path)
    plugin = plugins.of("backbone", example)
    assert plugin is not None
    assert plugin.error is None
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
