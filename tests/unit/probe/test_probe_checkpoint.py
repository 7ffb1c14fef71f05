from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from explorer.errors import ProbeError
from explorer.probe.checkpoint import (
    ProbeCard,
    find_probe,
    list_probes,
    load_probe,
    read_card,
    save_probe,
)
from explorer.probe.model import Probe, ProbeConfig

HASH = "b" * 64


def write(
    root: Path, *, layer: int = 5, sigma: float = 0.3, backbone: str = "toy-wan"
) -> ProbeCard:
    torch.manual_seed(layer)
    return save_probe(
        Probe(ProbeConfig.compact(8)),
        root,
        backbone=backbone,
        backbone_hash=HASH,
        layer=layer,
        sigma=sigma,
        data={"clips": 10},
        steps=3,
        seconds=1.5,
        metrics={"point_error": {"mean": 0.2, "low": 0.1, "high": 0.3}},
    )


def test_a_saved_probe_comes_back_within_half_precision(tmp_path: Path) -> None:
    card = write(tmp_path)
    torch.manual_seed(5)
    original = Probe(ProbeConfig.compact(8))
    loaded = load_probe(card, backbone_hash=HASH)
    features = torch.randn(1, 2, 4, 5, 8)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(features).depth, original(features).depth, atol=5e-3, rtol=0
        )
    assert not loaded.training
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in loaded.parameters())


def test_the_card_file_holds_everything(tmp_path: Path) -> None:
    card = write(tmp_path)
    path = tmp_path / "toy-wan" / "L05_S0.30.json"
    again = read_card(path)
    assert again.to_json() == card.to_json()
    assert again.weights == path.with_suffix(".safetensors")
    assert ProbeConfig.from_dict(again.config) == ProbeConfig.compact(8)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "L05_S0.30.json",
        "L05_S0.30.safetensors",
    ]


def test_probes_are_listed_in_order_and_found_by_cell(tmp_path: Path) -> None:
    write(tmp_path, layer=5, sigma=0.3)
    write(tmp_path, layer=5, sigma=0.1)
    write(tmp_path, layer=1, sigma=0.5)
    write(tmp_path, layer=0, sigma=0.0, backbone="rgb")
    cells = [(card.backbone, card.layer, card.sigma) for card in list_probes(root=tmp_path)]
    assert cells == [("rgb", 0, 0.0), ("toy-wan", 1, 0.5), ("toy-wan", 5, 0.1), ("toy-wan", 5, 0.3)]
    assert [card.layer for card in list_probes("toy-wan", root=tmp_path)] == [1, 5, 5]
    found = find_probe("toy-wan", 5, 0.1, root=tmp_path)
    assert found is not None
    assert found.sigma == 0.1
    assert find_probe("toy-wan", 5, 0.2, root=tmp_path) is None
    assert find_probe("toy-wan", 3, 0.1, root=tmp_path) is None


def test_the_shipped_folder_is_searched_when_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMERGE3D_ASSETS", str(tmp_path))
    assert list_probes() == []
    write(tmp_path / "probes")
    assert len(list_probes("toy-wan")) == 1
    assert find_probe("toy-wan", 5, 0.3) is not None


def test_a_probe_of_other_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"trained on other weights \(bbbbbbbbbbbb\)"):
        load_probe(write(tmp_path), backbone_hash="c" * 64)


def test_a_damaged_or_missing_file_is_refused(tmp_path: Path) -> None:
    card = write(tmp_path)
    content = bytearray(card.weights.read_bytes())
    content[-1] ^= 1
    card.weights.write_bytes(content)
    with pytest.raises(ProbeError, match="not the file that its card describes"):
        load_probe(card, backbone_hash=HASH)
    card.weights.unlink()
    with pytest.raises(ProbeError, match="cannot be read"):
        load_probe(card, backbone_hash=HASH)


def test_weights_that_do_not_fit_the_card_are_refused(tmp_path: Path) -> None:
    card = write(tmp_path)
    wrong = dataclasses.replace(card, config=ProbeConfig.compact(9).to_dict())
    with pytest.raises(ProbeError, match="does not fit its card"):
        load_probe(wrong, backbone_hash=HASH)
    with pytest.raises(ProbeError, match="does not fit its card"):
        load_probe(dataclasses.replace(card, config={"depth": 3}), backbone_hash=HASH)


def test_a_broken_card_names_its_file(tmp_path: Path) -> None:
    card = write(tmp_path)
    path = card.weights.with_suffix(".json")
    path.write_text('{"backbone": "toy-wan"}')
    with pytest.raises(ProbeError, match=r"L05_S0\.30\.json is not a probe card"):
        find_probe("toy-wan", 5, 0.3, root=tmp_path)


def test_cards_are_read_without_torch(tmp_path: Path) -> None:
    write(tmp_path)
    script = (
        "import sys; from pathlib import Path; from explorer.probe.checkpoint import list_probes; "
        "assert len(list_probes(root=Path(sys.argv[1]))) == 1; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
