"""Ridge readouts on disk."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from ridge_samples import HASH, fitted, linear_clip

from explorer.errors import ProbeError
from explorer.probe.checkpoint import list_probes
from explorer.probe.ridge_files import find_ridge, load_ridge, read_ridge_card, save_ridge


def test_a_saved_ridge_comes_back_exactly(tmp_path: Path) -> None:
    ridge = fitted()
    card = save_ridge(ridge, tmp_path, data={"world": "made up"}, metrics={"point_error": 0.1})
    path = tmp_path / "made-up" / "ridge_L05_S0.30.json"
    assert read_ridge_card(path) == card
    assert json.loads(path.read_text())["clips"] == {"train": 4, "validation": 2}
    found = find_ridge(tmp_path, "made-up", 5, 0.3)
    assert found is not None
    assert find_ridge(tmp_path, "made-up", 5, 0.5) is None
    again = load_ridge(found, backbone_hash=HASH)
    seen = linear_clip(42)[0]
    np.testing.assert_array_equal(again.predict(seen).points, ridge.predict(seen).points)
    assert again.cell == ridge.cell
    assert again.penalties == ridge.penalties
    assert again.clips == (4, 2)
    assert list_probes(root=tmp_path) == []  # a ridge beside a probe is not taken for one


def test_a_ridge_of_other_weights_is_refused(tmp_path: Path) -> None:
    card = save_ridge(fitted(), tmp_path, data={}, metrics={})
    with pytest.raises(ProbeError, match=r"fitted to other weights \(bbbbbbbbbbbb\)"):
        load_ridge(card, backbone_hash="c" * 64)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    card = save_ridge(fitted(), tmp_path, data={}, metrics={})
    with pytest.raises(ProbeError, match="does not fit its card"):
        load_ridge(dataclasses.replace(card, in_channels=5), backbone_hash=HASH)
    content = bytearray(card.weights.read_bytes())
    content[-1] ^= 1
    card.weights.write_bytes(content)
    with pytest.raises(ProbeError, match="not the file that its card describes"):
        load_ridge(card, backbone_hash=HASH)
    card.weights.unlink()
    with pytest.raises(ProbeError, match="cannot be read"):
        load_ridge(card, backbone_hash=HASH)
    path = card.weights.with_suffix(".json")
    path.write_text("{}")
    with pytest.raises(ProbeError, match="not a ridge card"):
        find_ridge(tmp_path, "made-up", 5, 0.3)
