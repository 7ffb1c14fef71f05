"""A training set with VGGT as its reference, which is what `emerge3d prepare` asks by default."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import prepared_samples as samples
import pytest
import torch
from prepared_samples import SIZE
from vggt_samples import write

from explorer.camera import unproject
from explorer.cli import main
from explorer.data.readers.prepared import open_prepared
from explorer.references import _vggt_files


def test_what_vggt_estimates_is_prepared_and_comes_back(
    weights: Path,
    state: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bias = state["camera_head.pose_branch.fc2.bias"].clone()
    bias[7:] += 3  # some field of view
    write(weights, {**state, "camera_head.pose_branch.fc2.bias": bias})
    samples.patch(monkeypatch)
    monkeypatch.setattr("explorer.references.vggt.SIDE", 42)
    folder, out = samples.folder_in(tmp_path), tmp_path / "made"
    arguments = ["prepare", "tiny", str(folder), "--out", str(out), "--frames", "3", "--limit", "1"]
    assert main([*arguments, "--size", *map(str, SIZE), "--device", "cpu"]) == 0
    store = open_prepared(out)
    digest = _vggt_files.in_folder(weights).digest
    assert (store.manifest.settings.reference, store.manifest.weights) == ("vggt", digest)
    assert json.loads((out / "manifest.json").read_text())["weights"] == digest
    found = store.scene("s0").maps(range(3))  # type: ignore[attr-defined]
    assert (found.source, found.size) == ("vggt", (28, 42))
    assert found.provenance["points_from"] == "depth"
    assert found.confidence.min() > 0.99  # 1 + exp, as logarithms
    assert (found.confidence > 1.0).any()
    assert found.depth.std() > 0
    again = unproject(found.depth.astype(np.float64), found.cameras)
    np.testing.assert_allclose(found.points, again, rtol=1e-4, atol=1e-5)
    assert found.points_are_depth()
