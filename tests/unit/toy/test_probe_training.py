"""A whole run of the probe grid's training, on a pool that takes no rendering."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from explorer.assets import assets_root
from explorer.data.world.spec import WORLD_VERSION
from explorer.toy import train_probes
from explorer.toy.probe_pool import MAPS, Needs, Pool
from explorer.toy.shards import load_shards
from explorer.toy.ship import ship_probes


def made_up_pool(
    renderer: Any, vae: Any, seeds: list[int], *, batch: int, on_gpu: bool, needs: Needs
) -> Pool:
    count, generator = len(seeds), torch.Generator().manual_seed(0)
    pose = torch.eye(4)[:3].expand(count, 5, 3, 4).clone()
    pose[:, :, 0, 3] = torch.arange(5) * 0.1
    intrinsics = torch.tensor([[100.0, 0.0, 64.0], [0.0, 100.0, 36.0], [0.0, 0.0, 1.0]])
    return Pool(
        latents=torch.randn(count, 8, 5, 36, 64, generator=generator).bfloat16(),
        frames=torch.randint(
            0, 255, (count, 5, 144, 256, 3), dtype=torch.uint8, generator=generator
        ),
        depth=torch.rand(count, 5, *MAPS, generator=generator) + 1.0,
        cam_from_world=pose,
        intrinsics=intrinsics.expand(count, 3, 3).clone(),
    )


def test_a_run_can_be_resumed_and_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = str(assets_root() / "models" / "toy-wan")
    monkeypatch.setattr(train_probes, "make_pool", made_up_pool)

    def run(out: str, *more: str) -> dict[str, Any]:
        arguments = ["--vae", model, "--transformer", model, "--out", str(tmp_path / out)]
        arguments += ["--cells", "latent:0:0.1,rgb:0:0.0", "--seconds", "1", "--pool", "2"]
        arguments += ["--held-out", "1", "--batch", "1", "--rate", "0.001", *more]
        monkeypatch.setattr(sys, "argv", ["train_probes", *arguments])
        train_probes.main()
        card: dict[str, Any] = json.loads((tmp_path / out / "probes0.json").read_text())
        return card

    first = run("first")
    assert first["finished"]
    assert first["steps"] >= 1
    second = run("second", "--resume", str(tmp_path / "first"))
    assert second["steps"] > first["steps"]
    assert second["history"][: len(first["history"])] == first["history"]
    before, _ = load_shards(tmp_path / "first", "probes0")
    after, _ = load_shards(tmp_path / "second", "probes0")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert sorted(ship_probes(tmp_path / "second", tmp_path / "probes")) == [
        "latent:0:0.1",
        "rgb:0:0.0",
    ]
    card = json.loads((tmp_path / "probes" / "rgb" / "L00_S0.00.json").read_text())
    assert card["data"]["world_version"] == WORLD_VERSION
    assert card["metrics"].keys() >= {"validation_points", "validation_depth", "validation_total"}

    unfinished = tmp_path / "second" / "probes0.json"
    unfinished.write_text(json.dumps({**second, "finished": False}))
    with pytest.raises(ValueError, match="unfinished"):
        ship_probes(tmp_path / "second", tmp_path / "probes")
