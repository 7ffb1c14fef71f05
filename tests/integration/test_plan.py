"""The commands that the laboratory plans next, run in their order, a thousand times smaller."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from printed_commands import REPOSITORY, module_of
from small_training import made_up_pool, make_small

from explorer.backbones import loaded, registry
from explorer.data.world import Rendered
from explorer.data.world.scene import Scenes
from explorer.probe.checkpoint import list_probes, list_seeds
from explorer.toy import (
    cells,
    config,
    latent_pools,
    latents,
    pool,
    probe_pool,
    sample,
    train_probes,
    train_transformer,
    train_vae,
)
from explorer.toy.config import VAE_CONFIG
from explorer.toy.shards import load_shards

SMALL = {
    "train_vae": "--steps 2 --pool 2 --batch 1 --held-out 1",
    "train_transformer": "--steps 2 --pool 2 --batch 1 --large-batch 1 --held-out 1",
    "train_probes": "--steps 1 --pool 2 --batch 1 --held-out 1 --validate-every 0",
    "sample": "--count 1 --real 0 --steps 1 --device cpu",
    "ship": "",
}
ELSEWHERE = ("ridge", "evaluate")  # their own tests run them, with a small backbone


def planned() -> list[tuple[str, list[str]]]:
    """(script, words) of the commands under the heading."""
    text = (REPOSITORY / "docs" / "toy-laboratory.md").read_text()
    blocks = text.split("## Next steps", 1)[1].split("```")[1::2]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [module_of(line) for line in lines if line.strip()]
    return [(module.rpartition(".")[2], words) for module, words in filter(None, found)]


def made_up(scenes: Scenes, *, height: int, width: int, frames: Any = None, **_: Any) -> Rendered:
    """What takes no tracing of rays: a smooth random picture that moves."""
    count, wanted = len(scenes.seeds), len(frames) if frames else config.FRAMES
    generator = torch.Generator().manual_seed(int(scenes.seeds[0]))
    shape = (count, wanted, height, width)
    small = torch.rand(count * wanted, 3, 5, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(small, (height, width), mode="bilinear")
    images = (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1).unflatten(0, (count, wanted))
    pose = torch.eye(4)[:3].expand(count, wanted, 3, 4).clone()
    pose[..., 0, 3] = torch.arange(wanted) * 0.05
    lens = torch.tensor([[1.0 * width, 0, width / 2], [0, 1.0 * width, height / 2], [0, 0, 1]])
    return Rendered(
        images=images.contiguous(),
        depth=torch.rand(shape, generator=generator) + 1.0,
        surface=torch.ones(shape, dtype=torch.uint8),
        cam_from_world=pose,
        intrinsics=lens.expand(count, 3, 3).clone(),
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.cards()  # those of the shipped models are made of what is patched below
    for module in (train_vae, latents):
        monkeypatch.setattr(module, "VAE_CONFIG", {**VAE_CONFIG, "base_dim": 4})
    sizes = {"num_attention_heads": 1, "attention_head_dim": 12, "ffn_dim": 24, "num_layers": 3}
    for name, variant in list(config.VARIANTS.items()):
        thin = replace(variant, config={**variant.config, **sizes})
        monkeypatch.setitem(config.VARIANTS, name, thin)
        monkeypatch.setitem(probe_pool.TRANSFORMERS, name, thin)
    monkeypatch.setitem(probe_pool.TRANSFORMERS, "random", config.VARIANTS["toy-wan"])
    monkeypatch.setattr(pool, "render", made_up)
    for module in (train_vae, train_transformer, sample):
        monkeypatch.setattr(module, "HEIGHT", 24)
        monkeypatch.setattr(module, "WIDTH", 32)
    monkeypatch.setattr(train_vae, "SMALL_HEIGHT", 16)
    monkeypatch.setattr(train_vae, "SMALL_WIDTH", 24)
    monkeypatch.setattr(latent_pools, "SIZES", {"144x256": (24, 32), "96x160": (16, 24)})
    monkeypatch.setattr(cells, "LAYERS", (1,))
    monkeypatch.setattr(cells, "SIGMAS", (0.1, 0.3, 0.5))
    monkeypatch.setattr(cells, "OTHERS", [(0, 0.1), (1, 0.1), (2, 0.1), (1, 0.3)])
    monkeypatch.setattr(train_probes, "make_pool", made_up_pool)
    make_small(monkeypatch)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: None) -> Callable[..., None]:
    """Runs a script with words, its folders moved to a temporary one."""
    monkeypatch.setenv("EMERGE3D_ASSETS", str(tmp_path))  # `ship` sets it; restored afterwards
    monkeypatch.setattr(loaded, "models", {})  # those of other tests are of other weights
    (tmp_path / "assets").mkdir()

    def moved(word: str) -> str:
        begins = word.partition("/")[0] in ("assets", "runs")
        return str(tmp_path / word) if begins else word

    def call(script: str, words: str | list[str]) -> None:
        split = words.split() if isinstance(words, str) else words
        kept = [moved(word) for word in split if word != "--compile"]
        monkeypatch.setattr(sys, "argv", [script, *kept, *SMALL[script].split()])
        importlib.import_module(f"explorer.toy.{script}").main()

    return call


def start(run: Callable[..., None]) -> None:
    """A VAE, a transformer and one probe, shipped."""
    run("train_vae", "--out runs/start")
    run("train_transformer", "--vae runs/start --out runs/start")
    models = "--vae runs/start --transformer runs/start"
    run("train_probes", f"{models} --cells latent:0:0.1 --out runs/there")
    run("ship", f"{models} --probes runs/there --out assets")


def test_the_planned_commands_run_one_after_another(
    tmp_path: Path, run: Callable[..., None]
) -> None:
    start(run)
    commands = planned()
    assert {script for script, _ in commands} == {*SMALL, *ELSEWHERE}
    for script, words in commands:
        if script not in ELSEWHERE:
            run(script, words)

    card = json.loads((tmp_path / "runs" / "transformer" / "transformer.json").read_text())
    sizes = {
        name: sum(count for _, count in spans) for name, spans in card["slices"][1]["sizes"].items()
    }
    assert sizes == {"144x256": 2, "96x160": 2}
    assert list(card["slices"][0]["sizes"]) == ["96x160"]
    probes = list_probes(root=tmp_path / "assets" / "probes")
    counts = {name: sum(card.backbone == name for card in probes) for name in ("toy-wan", "random")}
    assert counts == {"toy-wan": 3, "random": 3}
    seeds = [other.data["seed"] for card in probes for other in list_seeds(card)]
    assert sorted(seeds) == [1] * 4 + [2] * 4
    assert "samples.png" in (tmp_path / "assets/models/toy-wan/README.md").read_text()


def test_a_decoder_trained_further_leaves_latents_and_probes_as_they_are(
    tmp_path: Path, run: Callable[..., None]
) -> None:
    start(run)
    (before,) = list_probes(root=tmp_path / "assets" / "probes")
    run("train_vae", "--resume runs/start --decoder-only --first-seed 90 --out runs/further")
    first, second = (load_shards(tmp_path / "runs" / name, "vae") for name in ("start", "further"))
    assert [part["decoder_only"] for part in second[1]["slices"]] == [False, True]
    changed = {name for name, value in first[0].items() if not torch.equal(value, second[0][name])}
    assert any(name.startswith("decoder.") for name in changed)
    assert not any(name.startswith(latents.ENCODES) for name in changed)
    for name in latents.STATISTICS:  # of other clips they would be others
        assert first[1][name] == second[1][name]

    run("ship", "--vae runs/further --transformer runs/start --beside --out assets")
    (after,) = list_probes(root=tmp_path / "assets" / "probes")
    assert after.sha256 == before.sha256
    assert after.backbone_hash != before.backbone_hash
    assert after.backbone_hash == registry.hashes("latent").weights
